"""docs/security.md: each of its statements names a test that is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_PAGE = (ROOT / "docs/security.md").read_text()
_STATEMENTS = re.findall(r"^(?:- |\| (?!what |---).).*(?:\n  .*)*", _PAGE, re.MULTILINE)


@pytest.mark.parametrize("statement", _STATEMENTS)
def test_a_statement_about_security_names_a_test(statement: str) -> None:
    named = _NAMED.findall(statement)
    assert named, "give the test as `tests/<file>.py::<function>`"
    for file, function in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in functions, f"{file} has no {function}"
