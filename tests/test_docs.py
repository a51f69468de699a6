"""The site of the manual: pages that are made of the code, links that lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

import paliflow.configs
from paliflow.configs import schema
from paliflow.configs.base import Spec
from paliflow.configs.summary import Summary

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
KINDS = [getattr(paliflow.configs, name) for name in paliflow.configs.__all__]

_spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
assert _spec
assert _spec.loader
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


def test_reference_has_each_spec_each_command_and_each_column() -> None:
    specs, cli, columns = reference.specs_page(), reference.cli_page(), reference.columns_page()
    for kind in KINDS:
        _, _, section = specs.partition(f"\n## {kind.__name__}\n")
        assert all(f"\n| `{name}` | " in section for name in kind.model_fields), kind
    assert "## `paliflow annotate`" in cli
    assert "* `--max-new-tokens INT`: Tokens generated at most" in cli
    assert "```text\n# Lines of labels.jsonl" in cli
    for name in (*schema.ANNOTATIONS.names, *schema.FRAMES.names):
        assert f"\n| `{name}` | " in columns


def test_each_field_of_a_spec_says_what_it_is() -> None:
    specs = [kind for kind in KINDS if issubclass(kind, Spec) and not issubclass(kind, Summary)]
    given = [kind for kind in specs if kind.__name__.endswith("Spec")]
    fields = [(kind, name, field) for kind in given for name, field in kind.model_fields.items()]
    assert [(k.__name__, name) for k, name, field in fields if not field.description] == []


def test_output_page_has_the_types_of_the_schema() -> None:
    page = (ROOT / "docs" / "output.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)
    said: dict[str, str] = {}
    for names, types in rows:
        columns, kinds = re.findall(r"\w+", names), types.split(", ")
        said |= dict(zip(columns, kinds * len(columns) if len(kinds) == 1 else kinds, strict=False))
    short = {"double": "float64", "float": "float32"}
    for column in schema.ANNOTATIONS:
        kind = str(column.type)
        kind = "list of struct" if kind.startswith("list") else short.get(kind, kind)
        assert said[column.name] == kind, column.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert heading in [slug(title) for title in titles], link


def slug(title: str) -> str:
    """What a heading is called in links."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
