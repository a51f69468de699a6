"""Fine-tune, evaluate both, ask, promote: by Airflow's real parts and a real Ray cluster."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from paliflow.configs import PromoteSpec
from paliflow.jobs.evaluate.promotion import promote
from paliflow.model import BUNDLED_CHECKPOINT
from paliflow.tests.integration.conftest import SAMPLE, Services

pytestmark = pytest.mark.slow
PATIENCE_S = 900.0
SCENES = sorted(SAMPLE.glob("scene_*"))


def write_examples(folder: Path) -> None:
    """All scenes say `1`, which is not what the model in use reads; or, wrongly labelled, `2`."""
    folder.mkdir()
    for scene in SCENES:
        shutil.copy(scene, folder)
    half = len(SCENES) // 2
    for name, scenes, suffix in (
        ("right", SCENES[:half], "1"),
        ("wrong", SCENES[:half], "2"),
        ("held_out", SCENES[half:], "1"),
    ):
        rows = [{"image": scene.name, "prefix": "ocr", "suffix": suffix} for scene in scenes]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Weekly:
    """A run of the DAG `weekly`, triggered as it is made."""

    def __init__(self, services: Services, labels: str) -> None:
        self.services = services
        services.until(lambda: services.airflow.get("dags/weekly").is_success, PATIENCE_S)
        asked = {"logical_date": None, "conf": {"labels": labels}}
        run = services.airflow.post("dags/weekly/dagRuns", json=asked).raise_for_status()
        self.url = f"dags/weekly/dagRuns/{run.json()['dag_run_id']}"

    def get(self, what: str) -> Any:
        headers = {"Accept": "application/json"}
        return self.services.airflow.get(self.url + what, headers=headers).raise_for_status().json()

    def until(self, task: str, state: str) -> None:
        def states() -> set[str]:
            now = self.get(f"/taskInstances/{task}")["state"], self.get("")["state"]
            return {state, "failed"} & {*now}

        self.services.until(states, PATIENCE_S)
        assert self.get(f"/taskInstances/{task}")["state"] == state, self.services.logs()

    def answer(self, option: str) -> str:
        """Answers the approval; what it had said."""
        self.until("approve", "awaiting_input")
        # Before its scheduler has noticed that the asking is over, Airflow takes an answer for a
        # death of the task. People are slower.
        time.sleep(10)
        url = "/taskInstances/approve/-1/hitlDetails"
        asked = self.get(url)
        answer = {"chosen_options": [option], "params_input": {}}
        self.services.airflow.patch(self.url + url, json=answer).raise_for_status()
        return f"{asked['subject']}{asked['body']}"

    def summary(self, task: str) -> dict[str, Any]:
        entry = self.get(f"/taskInstances/{task}/xcomEntries/return_value?deserialize=true")
        return dict(entry["value"])

    def log(self, task: str) -> str:
        content = self.get(f"/taskInstances/{task}/logs/1")["content"]
        return "\n".join(str(entry.get("event", entry)) for entry in content)


def promotions(services: Services) -> list[dict[str, Any]]:
    """The events of the model's asset."""
    asked = {"source_dag_id": "weekly", "source_task_id": "promote"}
    found = services.airflow.get("assets/events", params=asked).raise_for_status().json()
    return list(found["asset_events"])


def followed(services: Services) -> int:
    """How many runs of the DAG that follows promotions have ended."""
    asked = {"state": "success"}
    runs = services.airflow.get("dags/follows/dagRuns", params=asked).raise_for_status().json()
    return int(runs["total_entries"])


def test_what_is_better_is_promoted_and_followed_and_what_is_worse_is_not(
    services: Services,
) -> None:
    write_examples(services.weekly)
    first = PromoteSpec(
        registry=str(services.weekly / "registry"),
        name="digits",
        checkpoint=str(BUNDLED_CHECKPOINT),
    )
    promote(first, Console())

    better = Weekly(services, "right")
    said = better.answer("Approve")
    model = better.summary("finetune")["model"]
    assert f"Promote {model}?" in said
    figure = better.summary("new")["figures"]["held_out/exact_match"]
    assert f"| held_out/exact_match | {figure:.4f} | 0.0000 |" in said
    better.until("promote", "success")
    promoted = better.summary("promote")
    assert (promoted["promoted"], promoted["version"]) == (True, 2), better.log("promote")
    assert promoted["checkpoint"] == model
    # Airflow's API lists no event whose DAG run has yet to start.
    services.until(lambda: followed(services) == 1, PATIENCE_S)
    (event,) = promotions(services)
    assert event["uri"] == f"{services.weekly.as_uri()}/registry/digits/production"
    assert event["extra"]["version"] == 2

    worse = Weekly(services, "wrong")
    assert f" | {figure:.4f} |" in worse.answer("Approve")
    worse.until("promote", "success")
    refused = worse.summary("promote")
    assert (refused["promoted"], refused["version"]) == (False, 2)
    assert f"{refused['reason']}. digits@production is version 2" in worse.log("promote")
    assert len(promotions(services)) == followed(services) == 1
