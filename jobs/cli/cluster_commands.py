"""`paliflow cluster`: the Kubernetes objects of a Ray cluster, to read and to apply."""

from importlib.metadata import version
from typing import Annotated, Any

import typer

from paliflow.configs import AnnotateSpec, EvaluateSpec, ExtractSpec, FineTuneSpec
from paliflow.configs.base import SpecError
from paliflow.configs.cluster import ClusterSpec
from paliflow.configs.load import load_spec
from paliflow.configs.manifests import as_yaml, pod_monitor, ray_cluster, ray_job, service_account
from paliflow.configs.run import RunSpec

cluster = typer.Typer(no_args_is_help=True)

_SPECS: dict[str, type[RunSpec]] = {
    "annotate": AnnotateSpec,
    "extract": ExtractSpec,
    "finetune": FineTuneSpec,
    "evaluate": EvaluateSpec,
}
_IMAGE = "REGION-docker.pkg.dev/PROJECT/REPOSITORY/paliflow"


@cluster.callback()
def _cluster() -> None:
    """Ray clusters on Kubernetes, as KubeRay starts them."""


def _of(field: str) -> str:
    return str(ClusterSpec.model_fields[field].description)


@cluster.command()
def render(
    chip: Annotated[str | None, typer.Option(help=_of("accelerator_type"))] = None,
    topology: Annotated[str | None, typer.Option(help=_of("topology"))] = None,
    gpu: Annotated[str | None, typer.Option(help=_of("gpu"))] = None,
    gpus_per_host: Annotated[int, typer.Option(help=_of("gpus_per_host"))] = 1,
    slices: Annotated[int, typer.Option(help=_of("slices"))] = 1,
    spot: Annotated[bool, typer.Option("--spot", help=_of("spot"))] = False,
    image: Annotated[
        str | None, typer.Option(help=f"{_of('image')} {_IMAGE}, with this version, if not given.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the cluster or the job.")] = "paliflow",
    namespace: Annotated[str, typer.Option(help=_of("namespace"))] = "default",
    kueue: Annotated[str | None, typer.Option(metavar="QUEUE", help=_of("queue"))] = None,
    account: Annotated[
        str | None,
        typer.Option(
            "--service-account",
            metavar="[NAME=]GOOGLE",
            help="The Google service account of the pods, with a Kubernetes one of that NAME or of "
            "the cluster's.",
        ),
    ] = None,
    host_cpu: Annotated[str | None, typer.Option(help=_of("host_cpu"))] = None,
    host_memory: Annotated[str | None, typer.Option(help=_of("host_memory"))] = None,
    monitor: Annotated[
        bool, typer.Option("--monitor", help="A PodMonitor for the Prometheus operator, too.")
    ] = False,
    job: Annotated[
        str | None,
        typer.Option(
            metavar="annotate|extract|finetune|evaluate",
            help="A RayJob that runs the spec of --spec, and no cluster that stays.",
        ),
    ] = None,
    spec: Annotated[
        str | None, typer.Option(metavar="SPEC.yaml", help="Of --job; with a run_id.")
    ] = None,
) -> None:
    """Prints the Kubernetes objects of a cluster as YAML, with comments. Nothing is started.

    \b
    paliflow cluster render --chip v5e --topology 2x4 --slices 2 --spot | kubectl apply -f -

    With --job and --spec, a RayJob: a cluster that ends with its job.
    """
    kubernetes, _, google = (account or "").rpartition("=")
    fields = {
        "image": image or f"{_IMAGE}:{version('paliflow')}",
        "accelerator_type": chip,
        "topology": topology,
        "gpu": gpu,
        "gpus_per_host": gpus_per_host,
        "slices": slices,
        "spot": spot,
        "namespace": namespace,
        "queue": kueue,
        "service_account": (kubernetes or name) if google else None,
        "host_cpu": host_cpu,
        "host_memory": host_memory,
    }
    hosts = ClusterSpec.parse(fields)
    objects: list[dict[str, Any]] = []
    if google:
        objects.append(service_account(hosts, google))
    if monitor:
        objects.append(pod_monitor(name, hosts))
    if job or spec:
        objects.append(_job(name, hosts, job, spec))
    else:
        objects.append(ray_cluster(name, hosts, version("ray")))
    print(as_yaml(objects), end="")


def _job(name: str, hosts: ClusterSpec, job: str | None, spec: str | None) -> dict[str, Any]:
    if not job or not spec:
        raise SpecError("--job and --spec go together: which job, and its spec's file")
    if job not in _SPECS:
        raise SpecError(f"--job {job!r}: one of {', '.join(_SPECS)}")
    return ray_job(name, hosts, version("ray"), job, load_spec(_SPECS[job], spec))
