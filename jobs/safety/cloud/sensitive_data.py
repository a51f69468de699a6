"""Personal data in texts by Sensitive Data Protection: `content:inspect`, `content:deidentify`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from paliflow.configs.cloud_filters import SensitiveDataFilter
from paliflow.jobs.safety.cloud.client import RejectedError, UnscoredError, google_client
from paliflow.jobs.safety.cloud.likelihood import likelihood, said
from paliflow.jobs.safety.cloud.texts import unscored, without_codes
from paliflow.jobs.safety.protocol import Score, Span

_BYTES = 450_000
"""Of the texts of a request as JSON; the service takes half a megabyte of a request."""
_ROWS = 50_000
_LABEL = "sensitive_data"


class SensitiveData:
    """A `TextFilter`. Each kind of find is a score, its likelihood, 1 to 5; a text without any
    scores 0 as `sensitive_data`."""

    name = "sensitive_data"
    version = "v2"

    def __init__(self, settings: SensitiveDataFilter) -> None:
        self._settings = settings
        self._client = google_client(self.name, settings.endpoint, settings.requests_per_minute)
        self._parent = f"/v2/projects/{settings.project}/locations/{settings.location}"

    def score(self, texts: Sequence[str]) -> list[list[Score]]:
        """See `TextFilter`."""
        plain = list(map(without_codes, texts))
        found: list[list[Score]] = [[] for _ in texts]
        for places in _batches(plain):
            for place, scores in zip(places, self._batch([plain[p] for p in places]), strict=True):
                found[place] = scores
        if self._settings.action == "redact" and self._settings.deidentify_template:
            self._rewrite(texts, found)
        return found

    def _batch(self, texts: Sequence[str]) -> list[list[Score]]:
        if len(json.dumps(texts)) > _BYTES:
            return [unscored([_LABEL], "too long for a request")] * len(texts)
        body = {"item": _table(texts), "inspectConfig": self._config}
        try:
            result = self._client.post(f"{self._parent}/content:inspect", body).get("result")
            if not isinstance(result, dict):
                raise UnscoredError("an answer without a result")
        except RejectedError as error:
            raise self._client.refused(error) from None
        except UnscoredError as error:
            return [unscored([_LABEL], str(error))] * len(texts)
        if result.get("findingsTruncated"):
            if len(texts) == 1:
                return [unscored([_LABEL], "more finds than an answer can have")]
            half = len(texts) // 2
            return self._batch(texts[:half]) + self._batch(texts[half:])
        try:
            return _scores(result.get("findings") or (), texts)
        except (TypeError, ValueError, KeyError, AttributeError):
            return [unscored([_LABEL], "a find that is at no place in the texts")] * len(texts)

    @property
    def _config(self) -> dict[str, Any]:
        return {
            "infoTypes": [{"name": each} for each in self._settings.info_types],
            "minLikelihood": self._settings.least,
            "includeQuote": False,
        }

    def _rewrite(self, texts: Sequence[str], found: list[list[Score]]) -> None:
        """Has the service rewrite, by the template, the texts with finds."""
        for place, scores in enumerate(found):
            plain = without_codes(texts[place]) == texts[place]  # a template could break tokens
            if plain and any(score.flagged for score in scores):
                try:
                    text = self._deidentified(texts[place])
                except RejectedError as error:
                    raise self._client.refused(error) from None
                except UnscoredError as error:
                    # It has finds that nobody has removed.
                    found[place] = unscored([_LABEL], str(error))
                else:
                    found[place] = [score._replace(rewritten=text) for score in scores]

    def _deidentified(self, text: str) -> str:
        body = {
            "item": {"value": text},
            "inspectConfig": self._config,
            "deidentifyTemplateName": self._settings.deidentify_template,
        }
        answer = self._client.post(f"{self._parent}/content:deidentify", body)
        item = answer.get("item")
        rewritten = item.get("value") if isinstance(item, dict) else None
        if not isinstance(rewritten, str) or rewritten == text:
            raise UnscoredError("the template has changed nothing")
        return rewritten


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """The places of the texts that go into each request."""
    batch, size = list[int](), 0
    for place, text in enumerate(texts):
        own = len(json.dumps(text)) + 50  # of the cell around it
        if batch and (size + own > _BYTES or len(batch) == _ROWS):
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += own
    if batch:
        yield batch


def _table(texts: Sequence[str]) -> dict[str, Any]:
    rows = [{"values": [{"stringValue": text}]} for text in texts]
    return {"table": {"headers": [{"name": "text"}], "rows": rows}}


def _scores(findings: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[list[Score]]:
    """
    Raises:
        ValueError, TypeError, KeyError, AttributeError: a find is not in the form of the service.
    """
    spans: list[dict[str, list[tuple[Span, int]]]] = [{} for _ in texts]
    for finding in findings:
        location = finding["location"]
        record = location["contentLocations"][0]["recordLocation"]
        row = int(record.get("tableLocation", {}).get("rowIndex", 0))
        where = location["codepointRange"]
        span = Span(int(where.get("start", 0)), int(where["end"]))
        if not (0 <= row < len(texts) and 0 <= span.start < span.end <= len(texts[row])):
            raise ValueError
        level = likelihood(finding.get("likelihood")) or 1
        spans[row].setdefault(finding["infoType"]["name"], []).append((span, level))
    return [_of_text(own) for own in spans]


def _of_text(found: Mapping[str, Sequence[tuple[Span, int]]]) -> list[Score]:
    taken: list[Span] = []
    scores = []
    # Finds may overlap: what is likelier has the place, and of the other what sticks out.
    for label, own in sorted(found.items(), key=lambda pair: -max(level for _, level in pair[1])):
        spans = [part for span, _ in own for part in _outside(span, taken)]
        taken += spans
        level = max(level for _, level in own)
        reason = f"{len(own)} found, {said(level)}"
        scores.append(Score(label, float(level), True, reason, tuple(sorted(set(spans)))))
    return scores or [Score(_LABEL, 0.0)]


def _outside(span: Span, taken: Sequence[Span]) -> list[Span]:
    """The parts of a span that are in none of those that are taken."""
    parts = [span]
    for other in taken:
        parts = [
            piece
            for part in parts
            for piece in (
                Span(part.start, min(part.end, other.start)),
                Span(max(part.start, other.end), part.end),
            )
            if piece.start < piece.end
        ]
    return parts
