"""The plane in which every method of the book must be read: accuracy against fairness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aimfair.plots._style import GREY, WIDTH, Results, as_frame, better, looks, mean_and_error, styled
from aimfair.study import tables


@styled
def accuracy_fairness(
    results: Results,
    fairness: str = "wst",
    accuracy: str = "acc",
    panels: Mapping[str, Sequence[str]] | None = None,
    reference: str = "",
) -> Figure:
    """All seeds as faint points, the mean of each method as a large one with its 95 % intervals; up and right is better.

    fairness   column of the horizontal axis: "wst", "eo_max", "eo_mean" or "std" (the last three reversed)
    panels     title of each panel and the methods that it shows, at most eight; empty: one panel with all
    reference  method that is in every panel: grey points, and dashed lines through its mean
    """
    frame = as_frame(results, "method", fairness, accuracy)
    shown = panels or {"": list(frame["method"].unique())}
    style = looks(name for names in shown.values() for name in names)
    size = (WIDTH, 5.2 if panels else 4.4)
    figure, row = plt.subplots(1, len(shown), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, (heading, names) in zip(row[0], shown.items(), strict=True):
        if reference:
            grey = frame[frame["method"] == reference]
            axes.scatter(grey[fairness], grey[accuracy], s=16, alpha=0.5, linewidths=0, color=GREY)
            axes.axvline(grey[fairness].mean(), color=GREY, ls="--", lw=1, label=reference)
            axes.axhline(grey[accuracy].mean(), color=GREY, ls="--", lw=1)
        for name in names:
            rows = frame[frame["method"] == name]
            (x, x_error), (y, y_error) = mean_and_error(rows[fairness]), mean_and_error(rows[accuracy])
            axes.scatter(rows[fairness], rows[accuracy], s=16, alpha=0.35, linewidths=0, **style[name])
            axes.errorbar(x, y, y_error, x_error, ms=9, mec="black", ls="", capsize=2, label=name, **style[name])
        axes.set_title(heading)
        better(axes, fairness, "x")
        if panels:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))
    better(row[0, 0], accuracy, "y")
    if not panels:
        figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def paths(frame: pd.DataFrame, x: str, y: str, along: str, chosen: str = "chosen") -> Figure:
    """A line per method through its mean points of columns ``x`` and ``y``, in the order of column ``along``.

    frame   a row per method, value of ``along`` and seed (or several: draws); a boolean column ``chosen``, if any, rings
            values. The values at the ends of a line are written beside them
    Lines of later methods have smaller points, so that equal ones are both seen.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    ends = []
    style = looks(frame["method"])
    for i, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        path = rows.groupby(along)[[x, y]].mean()
        axes.plot(path[x], path[y], lw=1.2, ms=max(4, 8 - i), label=method, **style[method])
        ends += [(f"{end:g}", tuple(path.loc[end])) for end in path.index[[-1, 0]].unique()]
        if chosen in rows:
            ringed = path.loc[sorted(rows.loc[rows[chosen], along].unique())]
            axes.scatter(ringed[x], ringed[y], 150, facecolors="none", edgecolors="black")
    _write(axes, ends)
    better(axes, x, "x")
    better(axes, y, "y")
    if ends:
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def learning_rate_curves(frame: pd.DataFrame, fairness: str = "wst", accuracy: str = "acc") -> Figure:
    """Each method's :func:`paths` along its learning rates (``lr``); up and right is better.

    The points are means over the seeds that have all rates, see :func:`aimfair.study.search.complete`.
    """
    frame = as_frame(frame, "method", "seed", "lr", fairness, accuracy)
    return paths(tables.complete(frame, among="lr"), fairness, accuracy, "lr")


def _write(axes: Axes, ends: list[tuple[str, tuple[float, float]]]) -> None:
    """The values beside the ends of the paths; of those that would lie on each other, the first."""
    axes.autoscale_view()  # else the axes' limits, and so the places, are not known before the drawing
    written: list[np.ndarray] = []
    for value, point in ends:
        place = axes.transData.transform(point)
        if all((np.abs(place - other) > (40, 14)).any() for other in written):  # pixels: what a label covers
            axes.annotate(value, point, xytext=(5, 5), textcoords="offset points", fontsize=9)
            written.append(place)
