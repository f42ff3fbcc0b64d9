"""How well methods that are told no group guess who belongs to a rare one."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import GREY, WIDTH, as_frame, look, styled


@styled
def guesses(frame: pd.DataFrame, share: float) -> Figure:
    """Recall and precision of the sets of faces that methods take for the rare groups; up and right is better.

    frame  a row per method, setting and seed: ``recall`` and ``precision`` in per cent; the seeds are faint points, the
           means of the settings large ones, joined in the order of ``setting``; those of later methods are drawn
           smaller, so that equal ones are both seen
    share  of the rare groups in the training set, per cent: the precision of a set drawn by lot
    """
    frame = as_frame(frame, "method", "setting", "recall", "precision")
    figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
    for i, (method, rows) in enumerate(frame.groupby("method", sort=False)):
        path = rows.groupby("setting")[["recall", "precision"]].mean()
        axes.scatter(rows["recall"], rows["precision"], s=16, alpha=0.35, linewidths=0, **look(i))
        axes.plot(
            path["recall"], path["precision"], lw=1.2, ms=max(4, 10 - 2 * i), mec="black", label=method, **look(i)
        )
        for setting in path.index[[0, -1]].unique():
            axes.annotate(f"{setting:g}", path.loc[setting], xytext=(6, 6), textcoords="offset points", fontsize=9)
    axes.axhline(share, color=GREY, ls="--", lw=1)
    axes.annotate("drawn by lot", (100, share), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=9)
    axes.set(xlabel="recall: rare faces that are found (%)", ylabel="precision: found faces that are rare (%)")
    axes.set(xlim=(0, 102), ylim=(0, 102))
    figure.legend(loc="outside lower center", ncols=3)
    return figure
