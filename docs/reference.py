"""A hook of MkDocs that makes pages of the code: specs, the command line, the output's columns.

It also puts the README and its neighbours into the site, whose source is the folder docs/.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import typer
from pydantic import BaseModel
from typer.cli import get_docs_for_click

import paliflow.configs
from paliflow.configs import schema
from paliflow.configs.base import Spec
from paliflow.jobs.cli.main import app

DOCS = Path(__file__).parent
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
}
"""Files beside docs/, and what they are called in the site."""
_LINK = re.compile(r"(\]\()([^)#:\s]+)(?=[)#])")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to those that MkDocs has found."""
    from mkdocs.structure.files import File  # here, so that tests of the pages need no MkDocs

    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Makes links out of docs/ those of the site."""
    if page.file.src_uri in ROOT_PAGES.values():
        return markdown
    return _LINK.sub(lambda found: found[1] + _in_site(found[2]), markdown)


def pages() -> dict[str, str]:
    """Returns the content of each page by its path in the site."""
    found = {
        "reference/specs.md": specs_page(),
        "reference/cli.md": cli_page(),
        "reference/columns.md": columns_page(),
    }
    for file, name in ROOT_PAGES.items():
        text = (DOCS.parent / file).read_text()
        if name == "license.md":
            text = f"# License\n\n```text\n{text}```\n"
        else:
            text = _LINK.sub(lambda link: link[1] + _in_site(f"../{link[2]}"), text)
        found[name] = text
    return found


def _in_site(link: str) -> str:
    """A link from a page in docs/, as it is in the site."""
    climbs, _, name = link.rpartition("../")
    if link.startswith("../docs/"):
        return link.removeprefix("../docs/")
    return climbs + ROOT_PAGES[name] if name in ROOT_PAGES else link


def specs_page() -> str:
    """Returns the fields of all specs and summaries, those that they are made of included."""
    models: dict[str, type[BaseModel]] = {}
    for name in paliflow.configs.__all__:
        model = getattr(paliflow.configs, name)
        if isinstance(model, type) and issubclass(model, Spec):
            models[name] = model
    own = [_model(name, model) for name, model in models.items()]
    return (
        "# Specs and summaries\n\n"
        "A spec is what a job is given: by an operator's arguments, a YAML file or the command "
        "line. A summary is what it leaves in `_manifest.json` and returns. Unknown fields of a "
        "spec are refused.\n\n" + "\n".join(own)
    )


def _model(name: str, model: type[BaseModel]) -> str:
    about = model.model_json_schema()
    lines = [f"## {name}\n", f"{_plain(model.__doc__ or '')}\n"]
    if changing := getattr(model, "EXECUTION_FIELDS", None):
        fields = ", ".join(f"`{field}`" for field in sorted(changing))
        lines.append(f"When a run is resumed, these may have changed: {fields}.\n")
    lines += ["| field | type | default | |", "|---|---|---|---|"]
    required = about.get("required", ())
    for field, detail in about.get("properties", {}).items():
        if field in required:
            default = "*required*"
        elif "default" in detail:
            default = f"`{json.dumps(detail['default'])}`"
        else:
            default = "empty"
        meaning = _cell(_plain(detail.get("description", "")))
        lines.append(f"| `{field}` | {_cell(_kind(detail))} | {_cell(default)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _kind(detail: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if reference := detail.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := detail.get("anyOf") or detail.get("oneOf"):
        return " or ".join(dict.fromkeys(map(_kind, choices)))
    if values := detail.get("enum"):
        return " or ".join(f"`{value}`" for value in values)
    if "const" in detail:
        return f"`{detail['const']}`"
    kind = detail.get("type", "any")
    if kind == "array":
        return f"list of {_kind(detail.get('items', {}))}"
    if kind == "object" and isinstance(detail.get("additionalProperties"), dict):
        return f"mapping to {_kind(detail['additionalProperties'])}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {detail[key]:g}" for key, sign in bounds.items() if key in detail]
    return " ".join([{"object": "mapping"}.get(kind, kind), *limits])


def cli_page() -> str:
    """Returns the help of all commands."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(
        obj=command, ctx=typer.Context(command, info_name="paliflow"), name="paliflow"
    )
    # What help shows line by line is an example.
    text = re.sub(r"\x08\n(.*?)\n\n", r"```text\n\1\n```\n\n", text, flags=re.DOTALL)
    return text.replace("# `paliflow`", "# The command line", 1)


def columns_page() -> str:
    """Returns the columns of the files that runs write, with what output.md and frames.md say."""
    tables = (
        ("Annotations", schema.ANNOTATIONS, "output.md"),
        ("Frames", schema.FRAMES, "frames.md"),
        ("Filtered", schema.FILTERED, "responsible_use.md"),
    )
    lines = ["# Columns\n", f"Schema version {schema.SCHEMA_VERSION}.\n"]
    for title, columns, page in tables:
        meanings = _meanings((DOCS / page).read_text())
        lines += [f"## {title}\n", f"Explained in [{page}](../{page}).\n"]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        for column in columns:
            kind = _cell(f"`{_arrow(column.type)}`")
            lines.append(f"| `{column.name}` | {kind} | {meanings[column.name]} |")
        lines.append("")
    return "\n".join(lines)


def _meanings(page: str) -> dict[str, str]:
    """What the tables of a page say of each column; several share a row."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|(?: [^|]* \|)? ([^|]*) \|$", page, re.MULTILINE)
    return {name: said for names, said in rows for name in re.findall(r"\w+", names)}


def _arrow(kind: Any) -> str:
    """An Arrow type on one line, without the names that Arrow gives a list's items."""
    if pa.types.is_list(kind):
        return f"list<{_arrow(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {_arrow(field.type)}' for field in kind)}>"
    return str(kind)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
