"""`ClusterSpec`: a Ray cluster on Kubernetes: which hosts, how many, and what they run."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from paliflow.configs.base import Spec
from paliflow.configs.placement import slice_of
from paliflow.configs.tpus import Slice

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTP]i?)?")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > 63:
        raise ValueError(
            "Kubernetes takes lower-case letters, digits and - only, starting with a letter, 63 at "
            "most"
        )
    return value


def _quantity(value: str) -> str:
    if not _QUANTITY.fullmatch(value):
        raise ValueError("Kubernetes takes a number and a unit, e.g. 100, 500m or 180Gi")
    return value


Name = Annotated[str, AfterValidator(_name)]
Quantity = Annotated[str, AfterValidator(_quantity)]


class ClusterSpec(Spec):
    """Hosts with TPUs or GPUs and a head without, as KubeRay starts them."""

    image: Annotated[str, Field(min_length=1)]
    """What head and workers run: `deploy/Dockerfile`, built and pushed by you."""
    accelerator_type: str | None = None
    """The generation of the TPUs, e.g. `v5e`."""
    topology: str | None = None
    """Of each slice, in chips, e.g. `2x4`."""
    gpu: str | None = None
    """Instead of TPUs, GKE's name of a GPU, e.g. `nvidia-l4`."""
    gpus_per_host: PositiveInt = 1
    """With `gpu`."""
    slices: PositiveInt = 1
    """How many of them; of GPUs, how many hosts."""
    spot: bool = False
    """Hosts that are cheaper and may be taken away at any time."""
    namespace: Name = "default"
    """Of Kubernetes."""
    service_account: Name | None = None
    """Kubernetes' service account of head and workers, whose Google identity reads and writes
    `gs://`; the namespace's default one if not given."""
    queue: Name | None = None
    """Kueue's local queue, which starts the cluster when there is quota for all of it."""
    host_cpu: Quantity | None = None
    """CPUs of a host that its pod asks for; whatever the host has if not given."""
    host_memory: Quantity | None = None
    """Memory of a host that its pod asks for, e.g. `180Gi`; whatever it has if not given."""

    @property
    def slice(self) -> Slice | None:
        """What each slice is, if the hosts have TPUs."""
        return slice_of(self.accelerator_type, self.topology)

    @model_validator(mode="after")
    def _has_accelerators(self) -> "ClusterSpec":
        if bool(self.slice) == bool(self.gpu):
            raise ValueError(
                "give accelerator_type and topology for TPUs, e.g. v5e and 2x4, or gpu, e.g. "
                "nvidia-l4"
            )
        return self
