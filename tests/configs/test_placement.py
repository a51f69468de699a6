"""Placements on TPU slices: what a host cannot give is an error of the spec, with the reason."""

from typing import Any

import pytest

from paliflow.configs import AnnotateSpec, FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.configs.chips import catalogue

ANNOTATE = {"input": "in", "output": "out", "prompts": ["ocr"], "run_id": "r"}
FINETUNE = {"output": "/out", "run_id": "r", "train": [{"path": "/in.jsonl"}]}


@pytest.mark.parametrize(
    ("kind", "topology", "chips", "hosts", "of_host"),
    [
        ("v4", "2x2x1", 4, 1, "2x2x1"),
        ("v4", "2x2x2", 8, 2, "2x2x1"),
        ("v5e", "1x1", 1, 1, "1x1"),
        ("v5e", "2x2", 4, 1, "2x2"),
        ("v5e", "2x4", 8, 1, "2x4"),
        ("v5e", "4x4", 16, 4, "2x2"),
        ("v5e", "16x16", 256, 64, "2x2"),
        ("v5p", "2x2x2", 8, 2, "2x2x1"),
        ("v5p", "2x2x4", 16, 4, "2x2x1"),
        ("TPU-V6E", "2x4", 8, 1, "2x4"),
        ("v6e", "8x8", 64, 16, "2x2"),
        ("v7x", "2x2x1", 4, 1, "2x2x1"),
        ("v7x", "4x4x4", 64, 16, "2x2x1"),
    ],
)
def test_slices_divide_into_hosts_as_gke_divides_them(
    kind: str, topology: str, chips: int, hosts: int, of_host: str
) -> None:
    found = catalogue().tpu(kind).slice(topology)
    assert (found.chips, found.hosts, found.host_topology) == (chips, hosts, of_host)
    assert found.chips_per_host * hosts == chips


@pytest.mark.parametrize(
    ("fields", "accelerators", "of_actor"),
    [
        ({"placement": "chip", "accelerator_type": "v5e", "topology": "4x4"}, {"TPU": 1}, "1x1"),
        ({"placement": "host", "accelerator_type": "v5e", "topology": "4x4"}, {"TPU": 4}, "2x2"),
        ({"placement": "host", "accelerator_type": "v6e", "topology": "2x4"}, {"TPU": 8}, "2x4"),
        (
            {"placement": "host", "accelerator_type": "v5p", "topology": "2x2x4"},
            {"TPU": 4},
            "2x2x1",
        ),
        (
            {"placement": "slice", "accelerator_type": "v5e", "topology": "4x4"}
            | {"model_parallel": 16},
            {"TPU": 4},
            "4x4",
        ),
        ({"placement": "slice", "accelerator_type": "v6e", "topology": "2x4"}, {"TPU": 8}, "2x4"),
        (
            {"accelerator_type": "v5e", "topology": "2x2", "accelerators_per_actor": {"TPU": 2}},
            {"TPU": 2},
            None,
        ),
    ],
)
def test_accelerators_of_an_actor_follow_from_its_placement(
    fields: dict[str, Any], accelerators: dict[str, float], of_actor: str | None
) -> None:
    spec = AnnotateSpec.parse(ANNOTATE | fields)
    assert spec.accelerators_per_actor == accelerators
    assert spec.actor_topology == of_actor
    assert AnnotateSpec.parse(spec.given()) == AnnotateSpec.parse(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"placement": "host"}, "placement='host' needs accelerator_type and topology"),
        ({"placement": "pod"}, "placement='pod': Input should be 'chip', 'host' or 'slice'"),
        ({"topology": "4x4"}, "accelerator_type is missing; give both"),
        ({"accelerator_type": "v5e"}, "topology is missing; give both"),
        (
            {"accelerator_type": "v9", "topology": "4x4"},
            "no such TPU is known; there are v4, v5e, v5p, v6e, v7x",
        ),
        (
            {"accelerator_type": "v5e", "topology": "3x3"},
            "topology='3x3': v5e has slices of 1x1, 2x2, 2x4, 4x4",
        ),
        ({"accelerator_type": "v5e", "topology": "4x4"}, "give placement, or accelerators_per_ac"),
        (
            {"placement": "host", "accelerator_type": "v5e", "topology": "4x4"}
            | {"accelerators_per_actor": {"TPU": 8}},
            "is accelerators_per_actor={'TPU': 4}, not {'TPU': 8.0}",
        ),
        (
            {"accelerator_type": "v5e", "topology": "4x4", "accelerators_per_actor": {"TPU": 8}},
            "a host has 4 chips",
        ),
        (
            {"accelerator_type": "v5e", "topology": "2x4", "accelerators_per_actor": {"TPU": 4}},
            "which four of a host's eight chips libtpu takes as a mesh differs between sources",
        ),
        (
            {"accelerator_type": "v5e", "topology": "4x4", "accelerators_per_actor": {"TPU": 2}},
            "nobody has seen a process take 2 of the 4 chips of a host whose slice has more hosts",
        ),
        (
            {"placement": "chip", "accelerator_type": "v7x", "topology": "2x2x1"},
            "nobody has seen a process take a part of such a host",
        ),
        (
            {
                "placement": "host",
                "accelerator_type": "v5e",
                "topology": "4x4",
                "model_parallel": 8,
            },
            "an actor on v5e of topology='4x4' has 4 devices; give a number that divides them, or "
            "placement='slice'",
        ),
        (
            {"accelerators_per_actor": {"TPU": 1}, "dtype": "float8_e4m3fn"},
            "dtype='float8_e4m3fn' is for an H100, H200 or L4; TPUs take int8",
        ),
    ],
)
def test_placements_that_no_host_can_give_are_refused(
    fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SpecError) as caught:
        AnnotateSpec.parse(ANNOTATE | fields)
    assert complaint in str(caught.value)


def test_a_model_may_spread_over_both_devices_of_each_chip() -> None:
    fields = {"placement": "host", "accelerator_type": "v7x", "topology": "2x2x1"}
    assert AnnotateSpec.parse(ANNOTATE | fields | {"model_parallel": 8}).model_parallel == 8


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"workers": 3, "topology": "4x4"}, "has 4 hosts, and a training takes all of them"),
        ({"workers": 4, "topology": "4x4", "accelerators_per_worker": {"TPU": 8}}, "{'TPU': 4} on"),
        ({"workers": 4, "accelerator_type": None}, "workers=4 with accelerators_per_worker={'TPU'"),
        ({"workers": 4, "topology": "5x5"}, "topology='5x5': v5e has slices of"),
        (
            {"workers": 8, "min_workers": 2, "topology": "4x4"},
            "workers=2: v5e of topology='4x4' has 4 hosts",
        ),
        (
            {"workers": 2, "min_workers": 4, "topology": "2x2"},
            "min_workers=4 is more than workers=2",
        ),
        (
            {"workers": 8, "min_workers": 4, "topology": "4x4", "batch_size": 16},
            "times workers=8, which min_workers=4 allows, times the 4 devices of each",
        ),
    ],
)
def test_workers_that_are_no_whole_slices_are_refused(
    fields: dict[str, Any], complaint: str
) -> None:
    given = {"batch_size": 12, "accelerators_per_worker": {"TPU": 4}, "accelerator_type": "v5e"}
    with pytest.raises(SpecError) as caught:
        FineTuneSpec.parse(FINETUNE | given | fields)
    assert complaint in str(caught.value)


def test_workers_are_the_hosts_of_one_slice_or_of_several() -> None:
    given = {"accelerators_per_worker": {"TPU": 4}, "accelerator_type": "v5e", "topology": "4x4"}
    for workers in (4, 8):
        fields = {"workers": workers, "min_workers": 4, "batch_size": 32}
        spec = FineTuneSpec.parse(FINETUNE | given | fields)
        assert list(spec.possible_workers) == [4, 8][: workers // 4]
        assert spec.slice
        assert spec.slice.tpu.ray == "TPU-V5LITEPOD"
