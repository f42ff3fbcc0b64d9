"""What a sweep does to accuracy and fairness: over k, or any other number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import COLOURS, LABELS, WIDTH, as_frame, look, mean_and_error, styled


@styled
def topk_curve(
    frame: pd.DataFrame,
    metrics: Sequence[str] = ("acc", "wst", "eo_max"),
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    x: str = "k",
    label: str = "tensors kept by each ranking, k",
) -> Figure:
    """One panel per metric: mean over seeds with its 95 % interval along column ``x``.

    baselines  horizontal lines, ``{"full fine-tuning": {"acc": ..., "wst": ...}}``
    """
    frame = as_frame(frame, x, *metrics)
    figure, panels = plt.subplots(1, len(metrics), figsize=(WIDTH, 3.0), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        points = [(at, *mean_and_error(rows[metric])) for at, rows in frame.groupby(x)]
        places, means, errors = [p[0] for p in points], [p[1] for p in points], np.hstack([p[2] for p in points])
        axes.errorbar(places, means, errors, capsize=2, lw=1.2, **look(0))
        for i, (name, values) in enumerate((baselines or {}).items(), start=1):
            style = ("--", ":", "-.")[(i - 1) % 3]
            axes.axhline(values[metric], color=COLOURS[i % len(COLOURS)], ls=style, label=name)
        axes.set_title(LABELS.get(metric, metric))
    panels[0][len(metrics) // 2].set_xlabel(label)
    if baselines:
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
