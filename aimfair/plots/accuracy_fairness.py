"""The plane in which every method of the book must be read: accuracy against fairness."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from aimfair.plots._style import WIDTH, Results, as_frame, better, look, mean_and_error, styled


@styled
def accuracy_fairness(results: Results, fairness: str = "wst", accuracy: str = "acc") -> Figure:
    """All seeds as faint points, the mean of each method as a large one with its 95 % intervals; up and right is better.

    fairness  column of the horizontal axis: "wst", "eo_max", "eo_mean" or "std" (the last three reversed)
    """
    frame = as_frame(results, "method", fairness, accuracy)
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
    for i, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        (x, x_error), (y, y_error) = mean_and_error(rows[fairness]), mean_and_error(rows[accuracy])
        axes.scatter(rows[fairness], rows[accuracy], s=16, alpha=0.35, linewidths=0, **look(i))
        axes.errorbar(x, y, y_error, x_error, ms=9, mec="black", ls="", capsize=2, label=method, **look(i))
    better(axes, fairness, "x")
    better(axes, accuracy, "y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
