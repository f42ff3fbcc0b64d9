"""What becomes of a fine-tuning when one block of the network is held back."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aimfair.environment import AimfairError
from aimfair.plots._style import GREY, WIDTH, Results, as_frame, look, mean_and_error, styled
from aimfair.plots.paired_differences import SHORT


@styled
def layer_freezing(
    results: Results, order: Sequence[str], reference: str, metrics: Sequence[str] = ("acc", "wst", "eo_max")
) -> Figure:
    """A panel per metric, in it a line per row: every seed as a faint point, mean and 95 % interval as a large one.

    order      methods from top to bottom, as the blocks lie from input to output; one without results leaves a gap
    reference  of these the one in which nothing is frozen: a dashed line through its mean
    Raises AimfairError if the reference has no results.
    """
    frame = as_frame(results, "method", *metrics)
    base = frame[frame["method"] == reference]
    if base.empty or reference not in order:
        raise AimfairError(f"nothing to compare with: there are no results of {reference!r}")
    figure, panels = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.9 + 0.42 * len(order)), sharey=True, squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        axes.axvline(base[metric].mean(), color=GREY, ls="--", lw=1.2)
        for i, name in enumerate(order):
            values = frame.loc[frame["method"] == name, metric]
            if len(values):
                mean, error = mean_and_error(values)
                axes.scatter(values, [i] * len(values), s=18, alpha=0.35, linewidths=0, **look(i))
                axes.errorbar(mean, i, xerr=error, ms=9, mec="black", ls="", capsize=3, **look(i))
        axes.set_xlabel(SHORT.get(metric, metric), fontsize=12)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(labelsize=11)
    panels[0][0].set_yticks(range(len(order)), list(order))
    panels[0][0].set_ylim(len(order) - 0.5, -0.5)
    return figure
