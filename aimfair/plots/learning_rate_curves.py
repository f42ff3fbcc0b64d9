"""A method is a path, not a point: where its learning rate leads it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aimfair.plots._style import WIDTH, as_frame, better, look, styled
from aimfair.study import tables


@styled
def learning_rate_curves(
    frame: pd.DataFrame, fairness: str = "wst", accuracy: str = "acc", rate: str = "lr", chosen: str = "chosen"
) -> Figure:
    """Each method's path along its learning rates in the accuracy-fairness plane; up and right is better.

    The points are means over the seeds that have all rates, see :func:`aimfair.study.tables.complete`.

    frame   a row per method, rate and seed (or several: draws); a boolean column ``chosen``, where there is one, rings
            the rates that the selection rule took
    """
    frame = as_frame(frame, "method", "seed", rate, fairness, accuracy)
    whole = tables.complete(frame, among=rate)
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    ends = []
    for i, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        path = whole[whole["method"] == method].groupby(rate)[[fairness, accuracy]].mean()
        if path.empty:  # no seed has all rates
            continue
        axes.plot(path[fairness], path[accuracy], lw=1.2, label=method, **look(i))
        ends += [(f"{end:g}", tuple(path.loc[end])) for end in path.index[[-1, 0]]]
        if chosen in rows and rows[chosen].any():
            ringed = path.loc[sorted(rows.loc[rows[chosen], rate].unique())]
            axes.scatter(ringed[fairness], ringed[accuracy], 150, facecolors="none", edgecolors="black")
    _write(axes, ends)
    better(axes, fairness, "x")
    better(axes, accuracy, "y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _write(axes: Axes, ends: list[tuple[str, tuple[float, float]]]) -> None:
    """The rates beside the ends of the paths; of those that would lie on each other, the first."""
    axes.autoscale_view()  # else the axes' limits, and so the places, are not known before the drawing
    written: list[np.ndarray] = []
    for rate, point in ends:
        place = axes.transData.transform(point)
        if all((np.abs(place - other) > (40, 14)).any() for other in written):  # pixels: what a label covers
            axes.annotate(rate, point, xytext=(5, 5), textcoords="offset points", fontsize=9)
            written.append(place)
