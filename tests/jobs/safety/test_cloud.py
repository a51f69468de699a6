"""Clients of cloud services: right scores of right answers, and no score where there is none."""

import base64
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from paliflow.configs import (
    FilterSpec,
    ModerateTextFilter,
    PerspectiveFilter,
    SafeSearchFilter,
    SensitiveDataFilter,
)
from paliflow.configs.base import SpecError
from paliflow.jobs.safety.checking import TextCheck, image_filter, outcome, text_filter
from paliflow.jobs.safety.cloud import client
from paliflow.jobs.safety.cloud.pace import Pace
from paliflow.jobs.safety.protocol import VIEW, Score, View
from paliflow.tests.jobs.here import filter_here
from paliflow.tests.jobs.safety.services import TOKEN, Fault, Services, rejected, services

KEY = "a-secret-key"
LEVELS = ("VERY_UNLIKELY", "UNLIKELY", "POSSIBLE", "LIKELY", "VERY_LIKELY")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    with services(folder) as state, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))
        patch.setenv("PALIFLOW_PERSPECTIVE_KEY", KEY)
        patch.setattr(client, "FIRST_WAIT_S", 0.001)
        yield state


@pytest.fixture(autouse=True)
def _forget(server: Services) -> None:
    server.asked.clear()
    server.faults.clear()


def moderate(server: Services, **fields: Any) -> ModerateTextFilter:
    return ModerateTextFilter(endpoint=server.endpoint, requests_per_minute=10**6, **fields)


def moderation(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Each category as likely as the text's number says; Toxic alone of the first ones."""
    confidence = float(re.findall(r"[\d.]+", body["document"]["content"])[0])
    names = ("Toxic", "Derogatory", "Insult", "Profanity", "Sexual", "Violent")
    told = [{"name": name, "confidence": 0.1} for name in names[1:]]
    told.append({"name": "Toxic", **({"confidence": confidence} if confidence else {})})
    return {"moderationCategories": told, "languageCode": "en", "languageSupported": True}


def values(scores: list[Score]) -> list[float | None]:
    return [score.score for score in scores]


def reasons(found: list[list[Score]]) -> list[str | None]:
    return [scores[0].reason for scores in found]


def test_texts_are_moderated_once_each_with_the_token(server: Services) -> None:
    server.answer = moderation
    judge = text_filter(moderate(server))
    texts = ["it is 0.9", "it is 0.2", "it is 0.9", "it is 0", "  ", "x" * 1_000_001]
    found = judge.score(texts)
    assert [values(scores)[0] for scores in found] == [0.9, 0.2, 0.9, 0, None, None]
    assert [score.label for score in found[0] if score.flagged] == ["toxicity"]
    assert values(found[0])[1:] == [0.1] * 4
    assert reasons(found)[4:] == ["blank", "longer than 1,000,000 bytes"]
    assert len(server.asked) == 3
    judge.score(texts)  # what has a score is remembered
    assert len(server.asked) == 3
    path, body, headers = server.asked[0]
    assert path == "/v2/documents:moderateText"
    assert body.keys() == {"document", "modelVersion"}
    assert body["document"].keys() == {"type", "content", "languageCode"}
    assert headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([Fault(429, {}, {"Retry-After": "0"}), Fault(429, {})], 0.5),
        ([Fault(503, {}), Fault(500, b"<html>"), Fault(408, {}), Fault(200, b"{bro")], 0.5),
        ([Fault(500, {})] * 5, "the service answers 500"),
        ([Fault(200, [1])] * 5, "an answer that is no JSON object"),
        ([Fault(200, {"moderationCategories": []})], "language en is not supported"),
        ([Fault(200, {"languageSupported": True})], "the answer has no score of it"),
        (
            [Fault(200, b'{"languageSupported": true, "moderationCategories": '
                   b'[{"name": "Toxic", "confidence": NaN}, 7]}')],
            "the answer has no score of it",
        ),
    ],
)  # fmt: skip
def test_faults_pass_or_leave_a_text_without_a_score(
    server: Services, faults: list[Fault], expected: float | str
) -> None:
    server.answer = moderation
    server.faults["moderateText"].extend(faults)
    ((first, *_),) = text_filter(moderate(server)).score(["it is 0.5"])
    assert expected == (first.reason if first.score is None else first.score)
    assert not first.flagged


@pytest.mark.parametrize("status", [401, 403, 404, 410, 400])
def test_what_only_the_user_can_mend_stops_the_run_and_tells_no_token(
    server: Services, status: int
) -> None:
    error = {"error": {"code": status, "message": "Caller is not allowed", "status": "DENIED"}}
    server.faults["moderateText"].append(Fault(status, error))
    with pytest.raises(SpecError, match=rf"moderate_text: 127\.0\.0\.1 answers {status}: Caller"):
        text_filter(moderate(server)).score(["it is 0.5"])


def test_a_quota_that_stays_used_up_and_a_service_that_hangs_leave_texts_unscored(
    server: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "QUOTA_PATIENCE_S", 0.02)
    server.faults["moderateText"].extend([Fault(429, {})] * 200)
    found = text_filter(moderate(server)).score(["it is 0.1", "it is 0.2"])
    assert reasons(found) == ["the quota is used up"] * 2
    server.faults.clear()
    monkeypatch.setattr(client, "TIMEOUT_S", 0.05)
    server.faults["moderateText"].extend([Fault(200, {}, hang_s=0.2)] * 5)
    found = text_filter(moderate(server)).score(["it is 0.3"])
    assert reasons(found) == ["no answer within 0.05 s"]


def view(width: int, height: int) -> View:
    return View(np.full((VIEW, VIEW, 3), 99, np.uint8), width, height)


def test_images_go_in_sixteens_in_their_shape_and_errors_of_one_are_its_own(
    server: Services,
) -> None:
    calls = 0

    def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        told = [
            {"safeSearchAnnotation": {"adult": LEVELS[n % 5], "violence": n % 5 + 1}}
            for n in range(len(body["requests"]))
        ]
        if calls == 1:
            told[0] = {"error": {"code": 7, "message": "denied for it"}}
            told[1] = {"error": {"code": 14, "message": "try again"}}
            told[2] = {"safeSearchAnnotation": {"adult": "UNKNOWN", "violence": 0}}
            return {"responses": told[:15]}  # of the last nothing is told
        return {"responses": told}

    server.answer = answer
    settings = SafeSearchFilter(endpoint=server.endpoint, parent="projects/shop/locations/eu")
    found = image_filter(settings).score([view(400, 100)] * 18)
    sizes = [len(body["requests"]) for body in server.bodies("images:annotate")]
    assert sizes == [16, 1, 2]
    assert values(found[3]) == [4, 4]
    assert [score.flagged for score in found[3]] == [True, True]
    assert [score.flagged for score in found[5]] == [False, False]
    assert found[0][0] == Score("adult", None, reason="denied for it")
    assert values(found[1]) == [1, 1]
    assert values(found[2]) == [None, None]
    assert reasons([found[15]]) == ["no answer about it"]
    body = server.bodies("images:annotate")[0]
    assert body["parent"] == "projects/shop/locations/eu"
    sent = body["requests"][0]
    assert sent["features"] == [{"type": "SAFE_SEARCH_DETECTION"}]
    picture = Image.open(io.BytesIO(base64.b64decode(sent["image"]["content"])))
    assert (picture.format, picture.size) == ("JPEG", (256, 64))


def finding(row: int, start: int, end: int, name: str, level: Any = "LIKELY") -> dict[str, Any]:
    """As the service writes it: numbers are texts, and 0 is left out."""
    record = {"tableLocation": {"rowIndex": str(row)} if row else {}}
    codepoints = {"end": str(end), **({"start": str(start)} if start else {})}
    location = {"codepointRange": codepoints, "contentLocations": [{"recordLocation": record}]}
    return {"infoType": {"name": name}, "likelihood": level, "location": location}


def sensitive(server: Services, **fields: Any) -> SensitiveDataFilter:
    return SensitiveDataFilter(endpoint=server.endpoint, project="shop", **fields)


def test_finds_in_a_table_of_texts_are_redacted_where_they_are(server: Services) -> None:
    texts = ["Ann Lee was here", "nothing", "call Bob at 1600 Main St", "<loc0001> Ann"]
    told = [
        finding(0, 0, 7, "PERSON_NAME", 4),
        finding(2, 5, 8, "PERSON_NAME", "VERY_LIKELY"),
        finding(2, 5, 24, "STREET_ADDRESS"),  # overlaps the name
    ]
    server.answer = lambda path, body: {"result": {"findings": told}}
    (found,) = [TextCheck([sensitive(server)]).verdicts(texts, "text")]
    assert [text for _, text in found] == [
        "[PERSON_NAME] was here",
        "nothing",
        "call [PERSON_NAME][STREET_ADDRESS]",
        "<loc0001> Ann",
    ]
    assert [(each.label, each.score) for each in found[0][0]] == [("PERSON_NAME", 4)]
    assert [(each.label, each.score) for each in found[1][0]] == [("sensitive_data", 0)]
    ((path, body, _),) = server.asked
    assert path == "/v2/projects/shop/locations/global/content:inspect"
    rows = body["item"]["table"]["rows"]
    assert [row["values"][0]["stringValue"] for row in rows] == [*texts[:3], " " * 9 + " Ann"]
    assert body["inspectConfig"]["minLikelihood"] == "LIKELY"
    assert body["inspectConfig"]["includeQuote"] is False


def test_truncated_and_misplaced_finds_are_no_answer(server: Services) -> None:
    def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
        rows = body["item"]["table"]["rows"]
        texts = [row["values"][0]["stringValue"] for row in rows]
        if "many" in texts:
            return {"result": {"findings": [finding(0, 0, 1, "X")], "findingsTruncated": True}}
        if "odd" in texts:
            return {"result": {"findings": [finding(0, 2, 9, "X")]}}
        return {"result": {}}

    server.answer = answer
    judge = text_filter(sensitive(server))
    found = judge.score(["a", "many", "b", "c"])
    assert [values(scores) for scores in found] == [[0], [None], [0], [0]]
    assert found[1][0].reason == "more finds than an answer can have"
    assert reasons(judge.score(["odd"])) == ["a find that is at no place in the texts"]
    assert reasons(judge.score(["x" * 500_000])) == ["too long for a request"]
    server.faults["content:inspect"].append(Fault(200, {}))
    assert reasons(judge.score(["a"])) == ["an answer without a result"]


def test_a_template_rewrites_texts_with_finds_and_without_it_nothing_is_kept(
    server: Services,
) -> None:
    def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("inspect"):
            return {"result": {"findings": [finding(n, 0, 3, "PERSON_NAME") for n in range(2)]}}
        return {"item": {"value": body["item"]["value"].replace("Ann", "***")}}

    server.answer = answer
    template = "projects/shop/locations/global/deidentifyTemplates/mask"
    check = TextCheck([sensitive(server, deidentify_template=template)])
    rewritten, kept = check.verdicts(["Ann again", "Bob is not Masked", "no"], "text")[:2]
    assert rewritten[1] == "*** again"
    assert [each.action for each in rewritten[0]] == ["redact"]
    assert (outcome(kept[0]), kept[0][0].reason) == (
        "unscored",
        "the template has changed nothing",
    )
    assert server.bodies("content:deidentify")[0]["deidentifyTemplateName"] == template


def analysis(path: str, body: dict[str, Any]) -> dict[str, Any]:
    told = {
        attribute: {"summaryScore": {"value": 0.9 if attribute == "INSULT" else 0.1}}
        for attribute in body["requestedAttributes"]
    }
    return {"attributeScores": told, "languages": ["en"]}


def test_perspective_scores_attributes_and_gives_up_those_that_lack_the_language(
    server: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "httpx")
    server.answer = analysis
    about = {"attribute": "THREAT", "requestedLanguages": ["cs"]}
    kind = "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE"
    fault = rejected("no", errorType=kind, languageNotSupportedByAttributeError=about)
    server.faults["analyze"].append(fault)
    settings = PerspectiveFilter(endpoint=server.endpoint, language="cs", requests_per_minute=10**6)
    judge = text_filter(settings)
    (found,) = judge.score(["ty hlupáku"])
    assert [score.label for score in found] == list(settings.attributes)
    assert values(found) == [0.1, 0.1, 0.9, None, 0.1]
    assert found[3].reason == "language cs is not supported"
    path, body, _ = server.asked[1]
    assert path == f"/v1alpha1/comments:analyze?key={KEY}"
    assert (body["doNotStore"], body["languages"]) == (True, ["cs"])
    assert "THREAT" not in body["requestedAttributes"]
    server.faults["analyze"].append(rejected("long", errorType="COMMENT_TOO_LONG"))
    assert values(judge.score(["another"])[0]) == [None] * 5
    server.faults["analyze"].append(rejected(f"API key {KEY} is not valid"))
    with pytest.raises(SpecError, match=r"perspective: .* answers 400: API key \*\*\* is not"):
        judge.score(["a third"])
    assert "comments:analyze?key=*** " in caplog.text
    assert KEY not in caplog.text


def test_a_filter_run_keeps_what_was_scored_and_tells_no_secret(
    server: Services, tmp_path: Path
) -> None:
    server.answer = analysis
    lines = [{"image": f"{n}.png", "text": f"text {n}"} for n in range(3)]
    for n in range(3):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{n}.png")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = FilterSpec.parse(
        {
            "input": str(tmp_path / "rows.jsonl"),
            "output": str(tmp_path / "out"),
            "run_id": "r",
            "filters": [
                {"filter": "perspective", "endpoint": server.endpoint, "attributes": ["threat"]}
                | {"requests_per_minute": 10**6}
            ],
            "text_columns": ["text"],
        }
    )
    server.faults["analyze"].append(rejected("no", errorType="LANGUAGE_DETECTION_FAILED"))
    with pytest.raises(SpecError, match=r"1 of 3 inputs could not be scored \(perspective/threat/"):
        filter_here(spec)
    # What is scored already is not asked again.
    summary = filter_here(spec.model_copy(update={"max_error_fraction": 0.4}))
    assert (summary.kept, summary.unscored, summary.removed) == (2, 1, 0)
    assert len(server.asked) == 3
    rows = pq.read_table(f"{summary.location}/part-00000.parquet").to_pylist()
    verdicts = sorted((row["safety"][0]["score"] or -1, row["status"]) for row in rows)
    assert verdicts == [(-1, "unscored"), (pytest.approx(0.1), "ok"), (pytest.approx(0.1), "ok")]
    written = b"".join(p.read_bytes() for p in Path(summary.location).rglob("*") if p.is_file())
    assert KEY.encode() not in written


def test_the_pace_spreads_requests_and_a_pause_stops_them() -> None:
    pace = Pace(1)
    waits = [pace.reserve() for _ in range(3)]
    assert waits == pytest.approx([0, 60, 120], abs=30)
    pace.pause(1000)
    assert pace.reserve() == pytest.approx(1000, abs=30)


@pytest.mark.parametrize(
    "endpoint", ["http://example.com", "https://key@example.com", "ftp://a", "https://a/b?key=x"]
)
def test_credentials_go_by_https_or_to_this_machine(endpoint: str) -> None:
    fields = {"input": "a", "output": "o", "run_id": "r"}
    with pytest.raises(SpecError, match="plain http goes to this machine alone"):
        FilterSpec.parse(fields | {"filters": [{"filter": "safe_search", "endpoint": endpoint}]})
