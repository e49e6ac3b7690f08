"""Who may import whom, read from the source: dependencies point one way, and heavy libraries stay where they belong."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("analysis", "hypotheses", "tracking", "experiments")
ALLOWED = {  # package -> modules of ours that it may import (itself always)
    "analysis": (),
    "hypotheses": ("analysis",),
    "tracking": ("analysis.trace",),
    "experiments": ("analysis", "hypotheses", "tracking"),
}
HOME = {  # library -> where it may be imported
    "torch": ("experiments/sources", "experiments/testbed", "experiments/predictor"),
    "transformers": ("experiments/sources", "experiments/testbed", "experiments/predictor"),
    "mlflow": ("tracking",),
    "optuna": ("tracking",),
    "matplotlib": ("analysis/figures",),
    "pickle": ("tracking/untrusted_child.py",),
    "cloudpickle": (),
    "joblib": (),
}
HEAVY = ("torch", "transformers", "mlflow", "optuna", "matplotlib", "pandas", "scipy", "sklearn", "numba", "polars", "pyarrow")


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(tree: ast.AST, package: str, skipped: frozenset[ast.AST] = frozenset()) -> Iterator[tuple[str, int]]:
    """(module, line) of every import; `from a import b` gives a.b, for b may be a module."""
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package if node.level else node.module or ""
            yield from ((f"{base}.{name.name}", node.lineno) for name in node.names)


def is_part_of(module: str, parent: str) -> bool:
    return module == parent or module.startswith(parent + ".")


def for_types_only(tree: ast.AST) -> frozenset[ast.AST]:
    """Everything under `if TYPE_CHECKING`, which never runs."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return frozenset(inner for block in blocks for statement in block.body for inner in ast.walk(statement))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_dependencies_point_one_way(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    package = relative.split("/")[0]
    wrong = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = (package, *ALLOWED[package])
    for module, line in imported(tree, package):
        top = module.split(".")[0]
        if top in (*PACKAGES, "tests") and not any(is_part_of(module, parent) for parent in ours):
            wrong.append(f"{relative}:{line}: {package} may import {', '.join(ours)}, not {module}")
    for module, line in imported(tree, package, for_types_only(tree)):
        top = module.split(".")[0]
        if top in HOME and not any(is_part_of(relative.replace("/", "."), home.replace("/", ".")) for home in HOME[top]):
            wrong.append(f"{relative}:{line}: {top} is imported only in {', '.join(HOME[top]) or 'no place'}")
    assert not wrong, "\n".join(wrong)


def at_import(path: Path) -> Iterator[str]:
    """Modules that importing `path` imports: everything outside functions and `if TYPE_CHECKING`."""
    def visit(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from visit(node.orelse)
                continue
            yield node
            for name in ("body", "orelse", "finalbody"):
                yield from visit(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                yield from visit(handler.body)

    for node in visit(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (module for module, _ in imported(ast.Module([node], []), path.relative_to(ROOT).parts[0]))


def source_of(module: str) -> list[Path]:
    """Files of ours that importing `module` runs, the packages above it included."""
    parts = module.split(".")
    found = []
    for depth in range(1, len(parts) + 1):
        stem = ROOT.joinpath(*parts[:depth])
        found += [path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()]
    return found if parts[0] in PACKAGES else []


@pytest.mark.parametrize("entry", ["experiments.cli", "tracking.run", "tracking.traces", "analysis.trace", "hypotheses.claim"])
def test_a_light_entry_imports_nothing_heavy(entry: str) -> None:
    waiting, seen = source_of(entry), dict.fromkeys(source_of(entry), entry)
    assert waiting, entry
    while waiting:
        path = waiting.pop()
        for module in at_import(path):
            place = f"{seen[path]}: {path.relative_to(ROOT)}"
            assert module.split(".")[0] not in HEAVY, f"{place} imports {module}; import it in the function that needs it"
            for source in source_of(module):
                if source not in seen:
                    seen[source] = f"{seen[path]} -> {module}"
                    waiting.append(source)


def test_analysis_opens_nothing_and_keeps_no_time() -> None:
    banned = {"open", "input", "print"}
    modules_banned = {"time", "random", "socket", "subprocess", "datetime", "os", "pathlib", "requests", "urllib"}
    wrong = []
    for path in sorted((ROOT / "analysis").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if "figures" not in path.parts:
            wrong += [f"{path.relative_to(ROOT)}:{line}: {module}" for module, line in imported(tree, "analysis")
                      if module.split(".")[0] in modules_banned]
        wrong += [f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id}()" for node in ast.walk(tree)
                  if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned]
    assert not wrong, "\n".join(wrong)


def test_the_rule_is_not_blind() -> None:
    """The reader of imports sees each form of import."""
    text = "import torch.nn\ndef f():\n    from analysis import trace\n    from .x import y\n"
    assert [module for module, _ in imported(ast.parse(text), "tracking")] == ["torch.nn", "analysis.trace", "tracking.y"]
