"""What it does to let one part of the network learn, or to hold one part back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from aimfair.plots._style import COLOURS, LABELS, WIDTH, Results, as_frame, look, mean_and_error, styled


@styled
def by_part(
    results: Results,
    parts: Sequence[str],
    metrics: Sequence[str] = ("acc", "wst", "eo_max"),
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    part: str = "block",
) -> Figure:
    """One panel per metric: the parts from input to output, for each method its mean over seeds with a 95 % interval.

    results    a row per method, part (column ``part``) and seed
    parts      in the order of the axis; a method may lack some
    baselines  horizontal lines, ``{"full fine-tuning": {"acc": ..., "wst": ...}}``
    """
    frame = as_frame(results, "method", part, *metrics)
    methods = list(frame["method"].unique())
    figure, panels = plt.subplots(1, len(metrics), figsize=(WIDTH, 3.4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        for i, method in enumerate(methods):
            rows = frame[frame["method"] == method]
            there = [j for j, name in enumerate(parts) if (rows[part] == name).any()]
            points = [mean_and_error(rows.loc[rows[part] == parts[j], metric]) for j in there]
            places = np.array(there) + 0.24 * (i - (len(methods) - 1) / 2)
            errors = np.hstack([error for _, error in points])
            axes.errorbar(places, [mean for mean, _ in points], errors, ls="", capsize=2, label=method, **look(i))
        for i, (name, values) in enumerate((baselines or {}).items(), start=len(methods)):
            style = ("--", ":", "-.")[(i - len(methods)) % 3]
            axes.axhline(values[metric], color=COLOURS[i % len(COLOURS)], ls=style, label=name)
        axes.set_title(LABELS.get(metric, metric))
        axes.set_xticks(range(len(parts)), list(parts), rotation=90)
        axes.set_xlim(-0.6, len(parts) - 0.4)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
