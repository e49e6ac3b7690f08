"""Write a report into a run directory."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from experiments.report.blocks import Picture, Section, Table
from experiments.report.content import ReportContent
from experiments.report.figure_files import save
from experiments.report.html import page
from experiments.report.markdown import as_markdown
from experiments.report.sections import assemble
from experiments.report.table_files import as_csv, as_tex
from tracking.atomic import write_bytes


def panel_module(hypothesis: str) -> ModuleType | None:
    """The module experiments.report.NAME_panels of a hypothesis; None if it brings no panels of its own."""
    name = f"experiments.report.{hypothesis}_panels"
    return importlib.import_module(name) if hypothesis.isidentifier() and importlib.util.find_spec(name) else None


def model_words(content: ReportContent) -> str:
    """Whose routing it is, in one line."""
    meta = content.trace.meta
    experts = sorted({layer.n_experts for layer in meta.layers})
    slots = sorted({layer.top_k for layer in meta.layers})
    return (f"Model {meta.model}, revision {meta.revision[:12]}: {len(meta.layers)} MoE layer{'s' if len(meta.layers) != 1 else ''}, "
            f"{' or '.join(map(str, experts))} experts, top-{' or '.join(map(str, slots))}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def _save_tables(sections: Sequence[Section], directory: Path) -> None:
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, Table):
            _write(directory / f"{block.name}.csv", as_csv(block))
            _write(directory / f"{block.name}.tex", as_tex(block))


@dataclass(frozen=True)
class Page:
    """title and lines under it; verdict: the word that colours the page; sections in order."""

    title: str
    subtitle: Sequence[str]
    verdict: str
    sections: Sequence[Section]


def write_page(run_directory: Path, shown: Page) -> Path:
    """Write figures/, report/tables/, report/report.md and report/report.html; return the path of the last."""
    pictures = [block for section in shown.sections for block in section.blocks if isinstance(block, Picture)]
    png = {picture.name: save(picture.figure, run_directory / "figures", picture.name) for picture in pictures}
    report = run_directory / "report"
    _save_tables(shown.sections, report / "tables")
    _write(report / "report.md", as_markdown(shown.title, shown.subtitle, shown.sections))
    _write(report / "report.html", page(shown.title, shown.subtitle, shown.verdict, shown.sections, png))
    return report / "report.html"


def write_files(run_directory: Path, files: Mapping[str, bytes]) -> None:
    """Files by path inside the run directory."""
    for name, file in files.items():
        (run_directory / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(run_directory / name, file)


def write(run_directory: Path, content: ReportContent) -> Path:
    """Write report/ and figures/ of a run, and the further files of its hypothesis; return the path of report.html.

    Report and figures depend on `content` alone, so that writing twice gives the same bytes.
    Raises OSError if the directory cannot be written.
    """
    module = panel_module(content.finding.hypothesis)
    make = content.panels or (module.panels if module else None)
    sections = assemble(content, make(content) if make else ())
    subtitle = [model_words(content), f"Hypothesis {content.finding.hypothesis}, declaration {content.finding.fingerprint[:12]}"]
    path = write_page(run_directory, Page(content.finding.title, subtitle, content.finding.verdict or "none", sections))
    if module and hasattr(module, "extra_files"):
        write_files(run_directory, module.extra_files(content, sections, run_directory / "figures"))
    if module and hasattr(module, "text_files"):
        for name, text in module.text_files(content).items():
            _write(path.parent / name, text)
    return path
