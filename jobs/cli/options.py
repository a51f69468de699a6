"""What commands that take a spec have in common: its file, `--set`, an option for each field."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from paliflow.configs import AnnotateSpec, EvaluateSpec, Sampling, VideoSpec
from paliflow.configs.annotate import Accept
from paliflow.configs.base import Spec, SpecError
from paliflow.configs.gate import Gate
from paliflow.configs.load import load_spec, make_spec, read_fields, set_field, set_value
from paliflow.configs.run import run_id_now
from paliflow.configs.safety import Redaction

SpecFile = Annotated[str, typer.Argument(help="The spec, in YAML.", metavar="SPEC.yaml")]
OptionalSpec = Annotated[
    str | None,
    typer.Argument(
        help="The spec, in YAML; with --benchmark it may be left out.", metavar="SPEC.yaml"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="A field of the spec by its path, and its value in YAML, e.g. video.fps=2 or "
        "prompts='- caption en'. It wins over an option and the file. Repeatable.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="A Ray cluster's head:port, or `auto`; one here if not given."),
]
RunId = Annotated[
    str | None, typer.Option(help="Instead of the spec's; the time, if neither is given.")
]

S = TypeVar("S", bound=Spec)
SPEC_SUFFIXES = (".yaml", ".yml")

_PANELS = {
    "What": "prompts video sniff image_column prompt_column id_column metadata_columns https_hosts "
    "allowed_roots only_new filters redact max_pixels exif decode read_timeout "
    "video_timeout decoder_memory",
    "Model": "checkpoint registry tokenizer mask_decoder dtype int8_cache query_pre_attn_scalar "
    "image_size calibration accept max_new_tokens max_prompt_tokens temperature top_k top_p beams "
    "seed",
    "Output": "output run_id generation thumbnail compact gate report row_group_size "
    "compression_level",
    "How": "actors cpus_per_actor placement accelerator_type topology accelerators_per_actor "
    "batch_size model_parallel compilation_cache shard_size stall_timeout start_timeout "
    "max_errors max_error_fraction max_usd usd_per_chip_hour",
}
_FLAGS = {"accelerators_per_actor": "--accelerator"}
_NOTES = {
    "run_id": "The time, if not given.",
    "accelerators_per_actor": "Here TPU=4 or GPU=1.",
    "accept": "Here precision=0.95.",
    "redact": "Here faces=blur.",
    "gate": "Here max_errors=0.05, or drift.against=week-31; docs/gates.md has them all.",
    "video": "Here fps=2, or count=8 and clip.frames=8; docs/video.md has them all.",
}


def _option(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    """A field of the spec as an option; the spec checks the values, so they stay text here."""
    repeated = get_origin(field.annotation) is tuple or _is_nested(name)
    notes = [field.description, _NOTES.get(name), "Repeat for several." if repeated else None]
    if isinstance(field.default, (str, int, float)):
        notes.append(f"Default: {str(field.default).lower()}.")
    option = typer.Option(
        *([] if field.annotation is bool else [_flag(name, repeated=repeated)]),
        help=" ".join(note for note in notes if note),
        metavar=None if field.annotation is bool else _metavar(field.annotation),
        show_default=False,
        rich_help_panel=panel,
    )
    kind: Any = bool if field.annotation is bool else list[str] if repeated else str
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if get_origin(annotation) is dict:
        return "NAME=FLOAT"
    if annotation in (VideoSpec | None, Accept | None, Gate | None, Redaction):
        return "NAME=VALUE"
    words = re.findall(r"\w+", str(annotation))
    return next((kind.upper() for kind in ("int", "float") if kind in words), "TEXT")


def takes_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Makes every field of an annotation an option of a command that ends in `**fields`."""
    known = {**AnnotateSpec.model_fields, **Sampling.model_fields}
    options = [
        _option(name, known[name], panel)
        for panel, names in _PANELS.items()
        for name in names.split()
    ]
    signature = inspect.signature(command)
    *own, _ = signature.parameters.values()
    command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return command


def takes_spec(kind: type[S]) -> Callable[[Callable[[S, str | None], None]], Callable[..., None]]:
    """Makes a command of a function of a run's spec and a cluster's address: it takes a file."""

    def made(run: Callable[[S, str | None], None]) -> Callable[..., None]:
        def command(
            spec: SpecFile,
            set_: Overrides = None,
            run_id: RunId = None,
            ray_address: Address = None,
        ) -> None:
            named = [f"run_id={run_id}"] if run_id else []
            run(load_spec(kind, spec, [*(set_ or ()), *named]), ray_address)

        command.__name__, command.__doc__ = run.__name__, run.__doc__
        return command

    return made


def spec_with_options(
    kind: type[S], file: str | None, options: Mapping[str, Any], overrides: Iterable[str]
) -> S:
    """A spec from a file, if there is one, and from options that say some of its fields.

    Args:
        kind: which spec it is.
        file: in YAML.
        options: by field, None where they were not given; they win over the file's.
        overrides: what `--set` gave; it wins over both.

    Raises:
        SpecError: it is no spec; the message names the file, if there is one.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if file is None and not given:
        raise SpecError("give SPEC.yaml, or options instead of it")
    try:
        return make_spec(kind, {**(read_fields(file) if file else {}), **given}, overrides)
    except SpecError as error:
        raise SpecError(f"{file}: {error}" if file else str(error)) from None


def annotate_spec(
    source: str, fields: Mapping[str, Any], overrides: Iterable[str] | None
) -> AnnotateSpec:
    """The spec that a command line says.

    Args:
        source: a spec in YAML, by its suffix, else the input.
        fields: what options gave, None where they did not; they win over the file's.
        overrides: what `--set` gave; it wins over the options.

    Raises:
        SpecError: it is no spec; the message names the file, if there is one.
    """
    file = source if Path(source).suffix in SPEC_SUFFIXES else None
    try:
        data: dict[str, Any] = read_fields(file) if file else {"input": source}
        for name, value in fields.items():
            if value is None:
                continue
            if _is_nested(name):
                for assignment in value:
                    set_field(data, assignment, _flag(name), within=name)
            elif name == "prompts":
                data[name] = [_prompt(text) for text in value]
            elif name in Sampling.model_fields:
                set_value(data, ("sampling", name), value, f"{_flag(name)} {value!r}")
            else:
                data[name] = value
        return make_spec(AnnotateSpec, data, overrides or ())
    except SpecError as error:
        raise SpecError(f"{file}: {error}" if file else str(error)) from None


def evaluate_specs(
    file: str | None,
    fields: Mapping[str, Any],
    overrides: Iterable[str],
    benchmarks: Iterable[str] | None,
    data: str | None,
    split: str | None,
    limit: int | None,
) -> list[EvaluateSpec]:
    """The specs that a command line of `evaluate` says: one, or one of each benchmark.

    Args:
        file: a spec in YAML.
        fields: what options gave of it; they win over the file's.
        overrides: what `--set` gave; it wins over both.
        benchmarks: names, each of which takes the place of the file's sets.
        data: the folder of their files.
        split: of each.
        limit: as many rows of each.

    Raises:
        SpecError: it is no spec; the message names the file, if there is one.
    """
    if not benchmarks:
        given = {"--data": data, "--split": split, "--limit": limit}
        if unused := [option for option, value in given.items() if value is not None]:
            raise SpecError(f"{', '.join(unused)}: of which --benchmark?")
        if file is None:
            raise SpecError("give SPEC.yaml, or --benchmark and --data")
    elif data is None:
        raise SpecError("--benchmark needs --data, the folder of its files")
    try:
        base = {**(read_fields(file) if file else {}), **fields}
        if not benchmarks:
            return [make_spec(EvaluateSpec, base, overrides)]
        for override in overrides:
            set_field(base, override, "--set")
        run_id = base.get("run_id") or run_id_now()
        more = {"split": split, "max_examples": limit}
        own = {name: value for name, value in more.items() if value is not None}
        return [
            make_spec(
                EvaluateSpec,
                {
                    **base,
                    "run_id": f"{run_id}-{name}",
                    "sets": {name: {"benchmark": name, "path": data, **own}},
                },
            )
            for name in dict.fromkeys(benchmarks)
        ]
    except SpecError as error:
        raise SpecError(f"{file}: {error}" if file else str(error)) from None


def _prompt(text: str) -> Any:
    """A prompt, or one with choices in YAML, which no other begins like."""
    if not text.startswith("{ask:"):
        return text
    holder: dict[str, Any] = {}
    set_field(holder, f"prompt={text}", "--prompt")
    return holder["prompt"]


def _is_nested(name: str) -> bool:
    """Whether an option gives fields of a field."""
    return name in ("accelerators_per_actor", "video", "accept", "gate", "redact")


def _flag(name: str, *, repeated: bool = True) -> str:
    flag = name.removesuffix("s") if repeated else name
    return _FLAGS.get(name, f"--{flag}".replace("_", "-"))
