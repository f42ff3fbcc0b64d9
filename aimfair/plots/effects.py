"""What methods change: the paper's differences against ours."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import COLOURS, GREY, WIDTH, as_frame, styled

KINDS = {
    "holds": ("stands", COLOURS[2], "o"),
    "contradicted": ("contradicted", COLOURS[3], "X"),
    "undecided": ("cannot be judged", GREY, "."),
}
NAMES = {"acc": "ACC", "wst": "WST", "eo": "EO"}


@styled
def effects(comparisons: pd.DataFrame, metric: Sequence[str] = ("acc", "wst", "eo")) -> Figure:
    """A panel per metric, in it a point per comparison: the paper's difference and ours with its 95 % interval, points.

    comparisons  rows of :func:`aimfair.paper.comparisons.comparisons`; those without runs are not drawn
    Colour and marker are the verdict. In the two shaded quarters the signs agree; on the dashed line the sizes do.
    """
    frame = as_frame(comparisons, "paper", "ours", "low", "high", "verdict").dropna(subset=["paper", "ours"])
    figure, panels = plt.subplots(1, len(metric), figsize=(WIDTH, 3.1), squeeze=False)
    for axes, name in zip(panels[0], metric, strict=True):
        mine = frame[frame["metric"] == name]
        across, up = (1.1 * max(1.0, np.abs(mine[c].to_numpy()).max(initial=0)) for c in (["paper"], ["low", "high"]))
        for sign in (-1, 1):
            axes.fill_between([0, sign * across], 0, sign * up, color="#EFF3F8", linewidth=0, zorder=0)
        axes.axline((0, 0), slope=1, color=GREY, ls="--", lw=1)
        for kind, (label, colour, marker) in KINDS.items():
            rows = mine[mine["verdict"] == kind]
            spread = np.array([rows["ours"] - rows["low"], rows["high"] - rows["ours"]])
            look = {"color": colour, "marker": marker, "ls": "", "elinewidth": 0.8, "alpha": 0.8}
            axes.errorbar(rows["paper"], rows["ours"], yerr=spread, label=label, **look)
        axes.set(xlim=(-across, across), ylim=(-up, up), title=NAMES.get(name, name), xlabel="the paper's difference")
    panels[0][0].set_ylabel("our difference")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
