"""Figures as bytes: the same figure gives the same bytes, whatever the clock says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRINT_DPI = 300  # seed 003, "All figures are saved at 300 DPI"
SHRINK = 2  # the page shows 150 dpi


def png(figure: Figure) -> bytes:
    """The figure as PNG at 300 dpi."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PRINT_DPI, metadata={"Software": None})
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """The figure as PDF without dates; rasterised parts at 300 dpi."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", dpi=PRINT_DPI, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return buffer.getvalue()


def for_screen(printed: bytes) -> bytes:
    """The PNG at half its resolution. Shrunk, not drawn again: hinted glyphs are wider at 150 dpi and would run out of the page."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(printed)) as image:
        image.convert("RGB").reduce(SHRINK).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def save(figure: Figure, directory: Path, name: str) -> bytes:
    """Write NAME.png and NAME.pdf for print into `directory`; return the smaller PNG for the page."""
    directory.mkdir(parents=True, exist_ok=True)
    figure.set_dpi(PRINT_DPI)  # the layout is solved at the resolution that is printed, once
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    printed = png(figure)
    write_bytes(directory / f"{name}.png", printed)
    write_bytes(directory / f"{name}.pdf", pdf(figure))
    return for_screen(printed)
