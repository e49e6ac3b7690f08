"""The look of every figure: size, fonts, colours, and the canvas that all figures start from."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

Drawing = ParamSpec("Drawing")

WIDTH_IN = 7.2  # text width of a two-column page; 1080 px at 150 dpi
WIDE_IN = 11.5  # of figures with many arms; a page shrinks them to its width
RASTERISE_ABOVE = 5_000  # points; a 50k-point vector scatter makes a PDF of megabytes

# Okabe & Ito (2008): told apart under all common colour-vision deficiencies.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
INK, GREY, PALE, SHADE = "#1c2733", "#7a8590", "#c9d0d6", "#eef3f7"

LOOK: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: same glyphs on every machine
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,  # names from data may hold a dollar sign
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.0,
    "legend.frameon": True,
    "legend.framealpha": 0.88,
    "legend.edgecolor": "none",
    "legend.facecolor": "white",
    "lines.linewidth": 1.4,
    "figure.dpi": 100.0,
    "figure.facecolor": "white",
}


def drawn(draw: Callable[Drawing, Figure]) -> Callable[Drawing, Figure]:
    """Draw under LOOK, whatever the caller's rcParams are, and leave those as they were."""

    @wraps(draw)
    def under_look(*args: Drawing.args, **kwargs: Drawing.kwargs) -> Figure:
        with rc_context(LOOK):
            return draw(*args, **kwargs)

    return under_look


def canvas(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure with constrained layout, attached to no window and to no pyplot registry."""
    return Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.05))


def two_abreast(n: int) -> tuple[int, int, float]:
    """Rows, blocks a row and width in inches of a figure of n wide blocks: one below the other up to two, else two abreast on a wider page."""
    return (max(n, 1), 1, WIDTH_IN) if n <= 2 else (-(-n // 2), 2, WIDE_IN)


def letter(axes: Axes, which: str, title: str) -> None:
    """Title of a panel with its letter, such as 'a  Entropy of occurrences'."""
    axes.set_title(f"{which}   {title}")


def count(value: float) -> str:
    """A count on an axis: 1, 10, 100, 1,000, 10k, 1M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e4 else f"{value:,g}"


def log_counts(axes: Axes) -> None:
    """A logarithmic x axis of counts, labelled in plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def per_cent(axes: Axes, axis: str = "y") -> None:
    """Label an axis of shares in per cent."""
    formatter = FuncFormatter(lambda value, _: f"{100 * value:.3g}%".replace("-", "\u2212"))
    (axes.yaxis if axis == "y" else axes.xaxis).set_major_formatter(formatter)


def colour_bar(axes: Axes, mappable: ScalarMappable, label: str, tick: Callable[[float], str]) -> None:
    """A narrow colour bar at the right edge of a panel, its ticks in the words of `tick`."""
    inside = axes.inset_axes((1.03, 0.0, 0.035, 1.0))
    ticks = FuncFormatter(lambda value, _: tick(value))
    bar = axes.figure.colorbar(mappable, cax=inside, ticks=MaxNLocator(6, integer=True), format=ticks)
    bar.set_label(label, fontsize=7)
    inside.spines[:].set_visible(False)
    inside.tick_params(labelsize=6.5)


def light_grid(axes: Axes, axis: str = "y") -> None:
    """A pale grid along one axis, behind what is drawn."""
    axes.grid(visible=True, axis=axis, color=PALE, linewidth=0.5, alpha=0.7)  # type: ignore[arg-type]


def absent(axes: Axes, why: str) -> None:
    """Say in the middle of a panel why nothing is drawn there."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY, wrap=True)
