"""The plane of accuracy and fairness once for each kind of method, where one picture would be crowded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from aimfair.plots._style import GREY, WIDTH, Results, as_frame, better, look, mean_and_error, styled


@styled
def accuracy_fairness_panels(
    results: Results,
    panels: Mapping[str, Sequence[str]],
    reference: str,
    fairness: str = "wst",
    accuracy: str = "acc",
) -> Figure:
    """All seeds as faint points, means as large ones with their 95 % intervals; the axes of the panels are the same.

    panels     title of each panel and the methods that it shows, at most eight; a method may be in several panels
    reference  method that is in every panel: grey points, and dashed lines through its mean
    """
    frame = as_frame(results, "method", fairness, accuracy)
    figure, row = plt.subplots(1, len(panels), figsize=(WIDTH, 5.2), sharex=True, sharey=True, squeeze=False)
    grey = frame[frame["method"] == reference]
    for axes, (heading, names) in zip(row[0], panels.items(), strict=True):
        axes.scatter(grey[fairness], grey[accuracy], s=16, alpha=0.5, linewidths=0, color=GREY)
        axes.axvline(grey[fairness].mean(), color=GREY, ls="--", lw=1, label=reference)
        axes.axhline(grey[accuracy].mean(), color=GREY, ls="--", lw=1)
        for i, name in enumerate(names):
            rows = frame[frame["method"] == name]
            (x, x_error), (y, y_error) = mean_and_error(rows[fairness]), mean_and_error(rows[accuracy])
            axes.scatter(rows[fairness], rows[accuracy], s=16, alpha=0.35, linewidths=0, **look(i))
            axes.errorbar(x, y, y_error, x_error, ms=9, mec="black", ls="", capsize=2, label=name, **look(i))
        axes.set_title(heading)
        better(axes, fairness, "x")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))
    better(row[0, 0], accuracy, "y")
    return figure
