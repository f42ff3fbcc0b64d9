"""What a distance of two sets owes to their smallness alone."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from aimfair.plots._style import WIDTH, as_frame, look, styled
from aimfair.stats import percentile


@styled
def distance_by_size(frame: pd.DataFrame, label: str, limits: Mapping[str, float] | None = None) -> Figure:
    """Mean and central 95 % of repeated draws of each series against the size of the sets, on logarithmic scales.

    frame   a row per draw: columns series, size, distance (above 0)
    limits  series -> what the mean tends to as the sets grow: a dashed line, left out where it is not above 0
    """
    frame = as_frame(frame, "series", "size", "distance")
    sizes = sorted(frame["size"].unique())
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    for i, (name, rows) in enumerate(frame.groupby("series", sort=False)):
        draws = [rows.loc[rows["size"] == size, "distance"].to_numpy() for size in sizes]
        low, high = np.transpose([percentile(d) for d in draws])
        axes.plot(sizes, [d.mean() for d in draws], lw=1.2, label=name, **look(i))
        axes.fill_between(sizes, low, high, color=look(i)["color"], alpha=0.25, lw=0)
        limit = (limits or {}).get(name, 0.0)
        if limit > 0:
            axes.axhline(limit, color=look(i)["color"], ls="--", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="faces in each set", ylabel=label)
    axes.set_xticks(sizes)
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
    figure.legend(loc="outside lower center", ncols=2)
    return figure
