"""`paliflow doctor`: probes a cluster, and says what is wrong with the remedy."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from paliflow.configs import AnnotateSpec
from paliflow.configs.chips import Chip, catalogue
from paliflow.jobs.annotate.probes import (
    IMAGES,
    NEW_TOKENS,
    PACKAGES,
    PROMPT_TOKENS,
    DeviceProbe,
    Devices,
    Node,
    look,
)

_PATIENCE_S = 120.0
"""A node that is busy or has to start a process answers later than one that is idle."""
_SLOW = 0.3
"""The share of a chip's peak below which a product says that something is wrong."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    grade: Literal["ok", "warning", "fault"]
    text: str


def examine(where: str | None, model: str | None) -> list[Finding]:
    """Probes every node of the cluster that this process is connected to.

    Args:
        where: a folder or `gs://` prefix that every node has to be able to write and read.
        model: a published model whose speed is measured on accelerators, if any.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    driver = {name: version(name) for name in PACKAGES}
    findings = list(judge_nodes(_looked(nodes, where), driver, where))
    fast = [node for node in nodes if {"TPU", "GPU"} & node["Resources"].keys()]
    probed = [probe for node in fast for probe in _probed(node, model)]
    return [*findings, *judge_devices(probed, model)]


def _looked(nodes: Iterable[Mapping[str, Any]], where: str | None) -> list[Node | str]:
    """What each node tells, or why it does not."""
    remote: Any = ray.remote(look)
    refs = [
        (
            node["NodeManagerHostname"],
            remote.options(num_cpus=0, scheduling_strategy=_on(node)).remote(where),
        )
        for node in nodes
    ]
    told: list[Node | str] = []
    for host, ref in refs:
        try:
            told.append(ray.get(ref, timeout=_PATIENCE_S))
        except Exception as error:  # of Ray or of the node's own environment
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            told.append(f"{host}: it cannot run Paliflow: {first}")
    return told


def _probed(node: Mapping[str, Any], model: str | None) -> Iterator[Devices]:
    """What processes find that have all chips of a node, and one."""
    there = node["Resources"]
    kind = "TPU" if "TPU" in there else "GPU"
    for count in sorted({int(there.get(kind, 0)), 1} - {0}, reverse=True):
        asked = {kind: float(count)}
        options = {"resources": asked} if kind == "TPU" else {"num_gpus": count}
        remote: Any = ray.remote(DeviceProbe)
        actor = remote.options(num_cpus=0, scheduling_strategy=_on(node), **options).remote()
        speed_of = model if count == there.get(kind) else None
        ref = actor.find.remote(asked, speed_of)
        host = node["NodeManagerHostname"]
        if not ray.wait([ref], timeout=_PATIENCE_S if not speed_of else 10 * _PATIENCE_S)[0]:
            yield Devices(host, asked, error="no answer: others hold the chips, or JAX hangs")
        else:
            try:
                yield ray.get(ref)
            except ray.exceptions.RayError as error:
                yield Devices(host, asked, error=" ".join(str(error).split())[:300])
        ray.kill(actor)


def _on(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def judge_nodes(
    told: Iterable[Node | str], driver: Mapping[str, str], where: str | None
) -> Iterator[Finding]:
    """What nodes say of themselves, beside what this process has.

    Args:
        told: by each node, or why it told nothing.
        driver: versions of this process's packages.
        where: what they tried to write to.
    """
    python = platform.python_version()
    for node in told:
        if isinstance(node, str):
            remedy = "install paliflow[ray] there (paliflow[tpu] on TPU hosts), or use one image"
            yield Finding("fault", f"{node}; {remedy}")
            continue
        wrong = 0
        if node.python != python:
            wrong += 1
            yield Finding(
                "fault",
                f"{node.host}: Python {node.python}, and the driver has {python}; Ray wants them "
                "the same to the patch: use one image",
            )
        for name, found in node.packages.items():
            if found == driver[name]:
                continue
            wrong += 1
            said = f"{node.host}: {name} {found or 'is missing'}"
            yield Finding(
                "fault",
                f"{said}, and the driver has {driver[name]}; install paliflow[ray] (paliflow[tpu] "
                "on TPU hosts) with -c constraints.txt there, or use one image",
            )
        if node.storage:
            wrong += 1
            yield Finding(
                "fault",
                f"{node.host}: {where} cannot be written and read: {node.storage}; make the bucket "
                "or folder, and give the node's service account the role storage.objectUser there",
            )
        if not wrong:
            stored = f", {where} can be written and read" if where else ""
            yield Finding("ok", f"{node.host}: Python {node.python}, the driver's packages{stored}")


def judge_devices(probed: Iterable[Devices], model: str | None) -> Iterator[Finding]:
    """What processes found on nodes with accelerators.

    Args:
        probed: for each node with all its chips, and with one.
        model: whose speed was measured.
    """
    none = True
    for each in probed:
        none = False
        asked = ", ".join(f"{name} {amount:g}" for name, amount in each.asked.items())
        who = f"{each.host}: an actor with {asked}"
        if each.error:
            yield Finding("fault", f"{who}: {each.error}")
            continue
        chip = catalogue().of_device(each.kind)
        text = f"{who} has {each.chips} x {each.kind}, {each.flops / 1e12:.3g} TFLOP/s in bfloat16"
        if not chip:
            yield Finding("warning", f"{text}; configs/chips.yaml does not know this chip")
            continue
        share = each.flops / (chip.flops("bfloat16") / _devices_per_chip(chip))
        grade: Literal["ok", "warning"] = "ok" if share >= _SLOW else "warning"
        yield Finding(grade, f"{text}, {share:.0%} of its peak")
        if model and each.images_per_second:
            plan = _planned(model, chip, each.chips)
            batch = f"{IMAGES} a device at a time, {NEW_TOKENS} tokens each"
            yield Finding(
                "ok",
                f"{who}: {model} with random weights answers {each.images_per_second:.3g} images/s "
                f"({batch}); `paliflow plan` reckons {plan:.3g}",
            )
    if none:
        yield Finding(
            "warning",
            "no node has the resource TPU or GPU: actors compute on CPUs. Of a TPU host, start Ray "
            "where /dev/accel* or /dev/vfio is there, or with --resources",
        )


def _devices_per_chip(chip: Chip) -> int:
    return next((tpu.devices_per_chip for tpu in catalogue().tpus if tpu.name == chip.name), 1)


def _planned(model: str, chip: Chip, chips: int) -> float:
    from paliflow.jobs.annotate.forecast import Load, outlook
    from paliflow.model import VARIANTS

    spec = AnnotateSpec.parse(
        {
            **{"input": "-", "output": "-", "run_id": "doctor", "prompts": ["caption en"]},
            **{"max_new_tokens": NEW_TOKENS, "batch_size": IMAGES * chips, "model_parallel": 1},
        }
    )
    load = Load(spec, model, VARIANTS[model], 1, 1, PROMPT_TOKENS, NEW_TOKENS, ())
    return outlook(load, chip, chips).images_per_second
