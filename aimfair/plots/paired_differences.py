"""Differences to a reference, seed by seed: the picture behind every paired test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import GREY, WIDTH, as_frame, look, mean_and_error, styled

SHORT: Mapping[str, str] = {"acc": "ACC", "wst": "WST", "eo_max": "EO (max)", "eo_mean": "EO (mean)", "std": "STD"}


@styled
def paired_differences(frame: pd.DataFrame, metric: Sequence[str] = ("acc", "wst", "eo_max")) -> Figure:
    """A panel per metric, in it a line per row: each seed's difference as a faint point, mean and 95 % interval as a large one.

    frame  a row per ``row`` and seed, with the difference of each metric in points; rows from top to bottom in the order
           in which they come. No difference is the dashed line.
    """
    frame = as_frame(frame, "row", *metric)
    names = list(frame["row"].unique())
    figure, panels = plt.subplots(1, len(metric), figsize=(WIDTH, 1.0 + 0.36 * len(names)), sharey=True, squeeze=False)
    for axes, column in zip(panels[0], metric, strict=True):
        axes.axvline(0, color=GREY, ls="--", lw=1)
        for i, name in enumerate(names):
            values = frame.loc[frame["row"] == name, column]
            mean, error = mean_and_error(values)
            axes.scatter(values, [i] * len(values), s=16, alpha=0.4, linewidths=0, **look(i))
            axes.errorbar(mean, i, xerr=error, ms=8, mec="black", ls="", capsize=3, **look(i))
        axes.set(xlabel=f"{SHORT.get(column, column)}, points")
    panels[0][0].set_yticks(range(len(names)), names)
    panels[0][0].invert_yaxis()
    return figure
