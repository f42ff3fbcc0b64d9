"""What all figures share: size, colours, words.

Colours are those of Okabe and Ito, which readers with any form of colour blindness can tell apart, and no
figure rests on colour alone: markers or hatches say the same. Text is 9 points or more.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aimfair.environment import AimfairError
from aimfair.faces import GROUPS
from aimfair.metrics import FairnessReport
from aimfair.stats import interval

WIDTH = 7.6
"""Inches; 684 pixels at the resolution below, the width of the book's text."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "xxxx")
GREY = "#5F5F5F"

BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK = COLOURS
METHODS = {
    "Baseline (ERM)": (BLACK, "X"),
    "ERM (baseline)": (BLACK, "X"),  # as the paper calls it
    "ERM, twice the epochs": (BLACK, "P"),
    "AIM-Fair": (BLUE, "o"),
    "AIM-Fair (cosine)": (SKY, "o"),
    "AIM-Fair (relative)": (SKY, "D"),
    "AIM-Fair (noise-scaled)": (SKY, "v"),
    "Full fine-tuning": (ORANGE, "s"),
    "Random mask, same size": (PINK, "v"),
    "Random selection": (PINK, "D"),
    "One block updated": (GREEN, "s"),
    "One block frozen": (GREEN, "D"),
    "Linear probing": (GREEN, "^"),
    "LoRA": (GREEN, "P"),
    "Weight interpolation": (ORANGE, "P"),
    "Trained on synthetic only": (PINK, "^"),
    "Data supplementation": (RED, "D"),
    "Data repairing": (RED, "s"),
    "LTGC-style mixing": (RED, "v"),
    "Generative editing (DiGA-style)": (PINK, "P"),
    "Edit, add, tune": (PINK, "*"),
    "From Fake to Real (FFR)": (RED, "P"),
    "DFR on synthetic": (SKY, "^"),
    "BMFT on synthetic": (SKY, "s"),
    "JTT": (ORANGE, "^"),
    "LfF": (ORANGE, "v"),
    "XRM": (ORANGE, "D"),
    "Group DRO (oracle)": (BLACK, "*"),
    "Sub-sampling (oracle)": (BLACK, "s"),
    "Balanced sampling (oracle)": (BLACK, "D"),
}
"""Colour and marker of each method that several figures show: the same through the whole book."""

STYLE: dict[Any, Any] = {
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "hatch.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.markersize": 6,
}

LABELS = {
    "acc": "accuracy, ACC (%)",
    "balanced": "mean of the cells (%)",
    "wst": "worst group, WST (%)",
    "eo_max": "EO, maximum form (points)",
    "eo_mean": "EO, mean form (points)",
    "std": "STD of the cells (points)",
}
"""Words for the columns of :meth:`aimfair.metrics.FairnessReport.as_dict`."""

SHORT = {"acc": "accuracy", "wst": "worst group", "eo_max": "EO, maximum", "eo_mean": "EO, mean", "std": "STD"}
"""The same in a word, for narrow panels."""

LOWER_IS_BETTER = {"eo_max", "eo_mean", "std"}

Results: TypeAlias = pd.DataFrame | Mapping[str, Sequence[FairnessReport]]
"""A row per method and seed (column ``method`` and those of ``FairnessReport.as_dict``), or reports by method."""


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the book's style; the figure is closed for pyplot, so that a notebook shows it once, and small."""

    @wraps(draw)
    def drawn(*arguments: Any, **options: Any) -> Figure:
        with plt.rc_context(STYLE):
            figure = draw(*arguments, **options)
        plt.close(figure)
        _shown_as_png()
        return figure

    return drawn


def _shown_as_png() -> None:
    """In a notebook, show figures by :func:`png`; after each drawing, because pyplot's own way is set by the first."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.display_formatter.formatters["image/png"].for_type(Figure, png)


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each name: those of :data:`METHODS`, and for other series what those leave free, in order.

    No two names look alike, up to 56 of them.
    """
    names = list(dict.fromkeys(names))
    fixed = [METHODS[name] for name in names if name in METHODS]
    used = {colour for colour, _ in fixed}
    pairs = [(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i in range(len(COLOURS) * len(MARKERS))]
    free = iter(sorted((pair for pair in pairs if pair not in fixed), key=lambda pair: pair[0] in used))
    chosen = {name: METHODS.get(name) or next(free) for name in names}
    return {name: {"color": colour, "marker": marker} for name, (colour, marker) in chosen.items()}


def seaborn_looks(names: Iterable[str]) -> dict[str, Any]:
    """:func:`looks` of series, as seaborn takes them."""
    each = looks(names).values()
    return {"palette": [look["color"] for look in each], "markers": [look["marker"] for look in each]}


def group_names(target: str = "t", protected: str = "p") -> list[str]:
    """Names of the four groups in table order, ``Smiling=0, Male=0`` and so on."""
    return [f"{target}={t}, {protected}={p}" for t, p in GROUPS]


def as_frame(results: Results, *needed: str) -> pd.DataFrame:
    """The results as a frame. Raises AimfairError if it is empty or lacks a needed column."""
    if not isinstance(results, pd.DataFrame):
        results = pd.DataFrame(
            [{"method": m} | report.as_dict() for m, reports in results.items() for report in reports]
        )
    missing = [column for column in needed if column not in results]
    if missing or results.empty:
        raise AimfairError(f"nothing to draw: the results have {len(results)} rows and lack columns {missing}")
    return results


def mean_and_error(values: Sequence[float] | np.ndarray | pd.Series) -> tuple[float, np.ndarray]:
    """Mean over seeds and its distances to the two ends of the 95 % interval, as error bars want them: (2, 1)."""
    mean = float(np.mean(values))
    low, high = interval(values)
    return mean, np.array([[mean - low], [high - mean]])


def better(axes: Axes, metric: str, axis: str) -> None:
    """Label one axis with a metric, turned so that better is always to the right or up."""
    turned = metric in LOWER_IS_BETTER
    label = LABELS.get(metric, metric) + (", axis reversed" if turned else "")
    axes.set(**{f"{axis}label": label})
    if turned:  # not toggled: panels may share the axis
        (axes.xaxis if axis == "x" else axes.yaxis).set_inverted(True)


def jpeg(figure: Figure, quality: int = 85) -> Any:
    """The figure as a JPEG for a notebook: a fifth of the PNG's size where the figure is photographs."""
    from IPython.display import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=figure.dpi, pil_kwargs={"quality": quality, "subsampling": 0})
    return Image(data=buffer.getvalue(), format="jpeg")


def png(figure: Figure, colours: int = 256) -> bytes:
    """The figure as a PNG of few colours: much smaller, and no difference to the eye for lines and marks.

    Where there is a difference, as in photographs, all colours stay.
    """
    from PIL import Image

    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi)
    whole = Image.open(buffer).convert("RGB")
    few = whole.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # keeps rare colours
    lost = np.abs(np.asarray(whole, np.int16) - np.asarray(few.convert("RGB"), np.int16)).mean()
    (few if lost < 1 else whole).save(small, format="png", optimize=True)
    return small.getvalue()
