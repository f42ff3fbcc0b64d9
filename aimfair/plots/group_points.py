"""What a measurement says of each group, with its interval: one series beside the other."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import WIDTH, as_frame, look, styled


@styled
def group_points(frame: pd.DataFrame, label: str) -> Figure:
    """A point and its interval for each group and series, groups from left to right in the order in which they come.

    frame  a row per series and group: columns series, group (its name), value, low, high
    label  what is measured, with its unit
    """
    frame = as_frame(frame, "series", "group", "value", "low", "high")
    groups, several = list(frame["group"].unique()), list(frame["series"].unique())
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
    for i, name in enumerate(several):
        rows = frame[frame["series"] == name].set_index("group").reindex(groups)
        value = rows["value"].to_numpy()
        reach = np.clip([value - rows["low"], rows["high"] - value], 0, None)
        x = np.arange(len(groups)) + 0.7 * ((i + 0.5) / len(several) - 0.5)
        axes.errorbar(x, value, reach, ls="", capsize=2, label=name, **look(i))
    axes.set(ylabel=label, xlim=(-0.5, len(groups) - 0.5))
    axes.set_xticks(range(len(groups)), [name.replace(", ", "\n") for name in groups])
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
