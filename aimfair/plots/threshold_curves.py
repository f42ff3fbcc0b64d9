"""What a classifier could be at another threshold."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import COLOURS, GREY, LABELS, WIDTH, as_frame, styled

DASHES = ("-", "--", ":", "-.")


@styled
def threshold_curves(
    frame: pd.DataFrame, metrics: Sequence[str] = ("acc", "wst", "eo_max"), label: str = "threshold on the logit"
) -> Figure:
    """A panel per metric: the mean over seeds along the threshold, a line per method; grey: the cut at 0.

    frame  of :func:`aimfair.analysis.thresholds.curves`: a row per method, seed and threshold, the same thresholds for all
    """
    frame = as_frame(frame, "method", "threshold", *metrics)
    figure, panels = plt.subplots(1, len(metrics), figsize=(WIDTH, 2.5), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        axes.axvline(0, color=GREY, lw=1)
        for i, (method, rows) in enumerate(frame.groupby("method", sort=False)):
            mean = rows.groupby("threshold")[metric].mean()
            look = {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i % len(DASHES)]}
            axes.plot(mean.index, mean.to_numpy(), lw=1.2, label=method, **look)
        axes.set_title(LABELS.get(metric, metric))
    panels[0][len(metrics) // 2].set_xlabel(label)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
