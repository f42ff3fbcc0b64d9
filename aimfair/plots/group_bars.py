"""Four accuracies per method: the picture of bias."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from aimfair.metrics import CELLS, COUNTS
from aimfair.plots._style import COLOURS, HATCHES, WIDTH, Results, as_frame, group_names, mean_and_error, styled
from aimfair.stats import binomial_error


@styled
def group_bars(results: Results, groups: Sequence[str] | None = None) -> Figure:
    """Bars of the four group accuracies of each method, in the order in which the methods come.

    groups  names of the groups for the legend, see :func:`aimfair.plots.group_names`

    Whiskers are 95 %: over seeds where a method has several; from the size of the test set (1.96 binomial
    standard errors) where it has one row whose counts are known; none otherwise.
    """
    frame = as_frame(results, "method", *CELLS)
    methods = list(frame["method"].unique())
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
    for g, cell in enumerate(CELLS):
        drawn = [_height(frame[frame["method"] == method], cell, COUNTS[g]) for method in methods]
        axes.bar(
            np.arange(len(methods)) + (g - 1.5) * 0.2,
            [height for height, _ in drawn],
            width=0.18,
            yerr=np.hstack([error for _, error in drawn]),
            color=COLOURS[g],
            hatch=HATCHES[g],
            edgecolor="white",
            error_kw={"elinewidth": 1, "capsize": 2},
            label=(groups or group_names())[g],
        )
    axes.set(ylim=(0, 100), ylabel="accuracy in the group (%)")
    axes.set_xticks(range(len(methods)), [method.replace(" ", "\n", 1) for method in methods])
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2 if max(map(len, groups or [""])) > 14 else 4)
    return figure


def _height(rows: pd.DataFrame, cell: str, count: str) -> tuple[float, np.ndarray]:
    if len(rows) > 1:
        return mean_and_error(rows[cell])
    height, n = float(rows[cell].iloc[0]), float(rows.get(count, pd.Series([1.0])).iloc[0])
    return height, np.full((2, 1), 1.96 * float(binomial_error(height, n)) if n > 1 else np.nan)
