"""What README and docstrings promise is there."""

import ast
import re
from pathlib import Path

import pytest

from experiments.cli import ALIASES, parser
from experiments.declaration import declared_names, load

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = [path for package in ("analysis", "experiments", "hypotheses", "tracking") for path in sorted((ROOT / package).rglob("*.py"))]


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert named and named <= targets


def test_every_command_of_the_readme_is_one() -> None:
    commands = next(action.choices for action in parser()._actions if action.dest == "command")
    named = set(re.findall(r"\bassay ([a-z]+(?:-[a-z]+)?)\b", README)) - {"puts", "list", "distribution"}
    assert named <= set(commands)


def test_every_path_of_the_readme_is_there() -> None:
    for path in re.findall(r"`((?:experiments|analysis|hypotheses|tracking|tests)/[\w./]+)`", README):
        assert (ROOT / path).exists() or "yours" in path, path


@pytest.mark.parametrize("flag", ALIASES)
def test_every_flag_is_an_alias_of_a_declared_key(flag: str) -> None:
    table, _, key = ALIASES[flag].rpartition(".")
    model = load("var", "quick")
    holder = getattr(model, table) if table else model
    assert key in type(holder).model_fields or key == "num_samples"  # num_samples is shared out over domains when the file is read


def test_every_declared_experiment_names_its_profiles() -> None:
    for name in declared_names():
        assert load(name, "tiny").profile == "tiny"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_things_have_docstrings_and_files_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    assert not text or ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 60, node.name
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []
