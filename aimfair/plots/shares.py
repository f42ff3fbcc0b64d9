"""How much of a network a selection holds: counted in tensors, and counted in single parameters."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import GREY, WIDTH, as_frame, look, styled


@styled
def shares(frame: pd.DataFrame, tensors: str = "tensors", parameters: str = "parameters") -> Figure:
    """One point per selection: its share of the tensors against its share of the parameters, both in per cent.

    frame  a row per method and selection; selections that coincide are drawn over each other
    On the dashed line the two shares are equal.
    """
    frame = as_frame(frame, "method", tensors, parameters)
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
    axes.plot((0, 100), (0, 100), color=GREY, ls="--", lw=1)
    for i, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        axes.scatter(rows[tensors], rows[parameters], 40, alpha=0.6, label=method, **look(i))
    axes.set(xlim=(-3, 103), ylim=(-3, 103), xlabel="share of the tensors (%)", ylabel="share of the parameters (%)")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
