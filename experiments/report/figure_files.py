"""Figures as bytes: the same figure gives the same bytes, whatever the clock says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRINT_DPI = 300  # seed 003, "All figures are saved at 300 DPI"
SCREEN_DPI = 150


def png(figure: Figure, dpi: int) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """The figure as PDF without dates; rasterised parts at 300 dpi."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", dpi=PRINT_DPI, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return buffer.getvalue()


def save(figure: Figure, directory: Path, name: str) -> bytes:
    """Write NAME.png and NAME.pdf for print into `directory`; return the smaller PNG for the page."""
    directory.mkdir(parents=True, exist_ok=True)
    figure.set_dpi(PRINT_DPI)  # hinted glyphs are wider at some resolutions, so the layout is solved at the one that is printed
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # solved once: doing it again for each file takes longer than drawing
    (directory / f"{name}.png").write_bytes(png(figure, PRINT_DPI))
    (directory / f"{name}.pdf").write_bytes(pdf(figure))
    return png(figure, SCREEN_DPI)
