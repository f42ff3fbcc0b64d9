"""What the prompts of each group mention."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aimfair.environment import AimfairError
from aimfair.plots._style import COLOURS, WIDTH, group_names, styled


@styled
def mentions(table: pd.DataFrame, target: str = "t", protected: str = "p") -> Figure:
    """How often each phrase is said in each group: one panel per protected value, one marker per target value.

    table  a row per phrase (its index), a column for each group in the order (0,0) (0,1) (1,0) (1,1)

    Where a bank is balanced over the target, every circle sits in its square.
    """
    if table.shape[1] != 4 or table.empty:
        raise AimfairError(f"mentions wants a row per phrase and four columns of groups, got a table of {table.shape}")
    names, rows = group_names(target, protected), range(len(table))
    figure, panels = plt.subplots(1, 2, sharey=True, sharex=True, figsize=(WIDTH, 1.2 + 0.215 * len(table)))
    for value, axes in enumerate(panels):
        low, high = table.iloc[:, value], table.iloc[:, 2 + value]
        axes.hlines(rows, low, high, color=COLOURS[6], lw=1)
        axes.plot(low, rows, "s", ms=8, mfc="none", mec=COLOURS[3], mew=1.4, label=f"{target}=0")
        axes.plot(high, rows, "o", ms=4.5, color=COLOURS[0], label=f"{target}=1")
        axes.set(xlabel="prompts that say it", title=names[value].split(", ")[1])
    panels[0].set_yticks(rows, list(table.index))
    panels[0].invert_yaxis()
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure
