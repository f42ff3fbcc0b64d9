"""Two knobs at once: along the one, a line for each value of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from aimfair.plots._style import GREY, LABELS, WIDTH, Results, as_frame, look, mean_and_error, styled


@styled
def sweep_curves(
    results: Results,
    x: str,
    line: str,
    metrics: Sequence[str] = ("acc", "wst", "eo_max"),
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    label: str = "",
    title: str = "",
) -> Figure:
    """One panel per metric: means over seeds with their 95 % intervals along column ``x``, lines by column ``line``.

    label, title  of the horizontal axis and of the legend; the names of the columns where empty
    baselines     horizontal lines in grey, ``{"biased model": {"acc": ..., "wst": ...}}``
    """
    frame = as_frame(results, x, line, *metrics)
    values, lines = sorted(frame[x].unique()), list(frame[line].unique())
    figure, panels = plt.subplots(1, len(metrics), figsize=(WIDTH, 3.4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        for i, name in enumerate(lines):
            rows = frame[frame[line] == name]
            there = [j for j, value in enumerate(values) if (rows[x] == value).any()]
            points = [mean_and_error(rows.loc[rows[x] == values[j], metric]) for j in there]
            places = np.array(there) + 0.1 * (i - (len(lines) - 1) / 2)  # intervals beside each other
            errors = np.hstack([error for _, error in points])
            axes.errorbar(places, [mean for mean, _ in points], errors, lw=1, capsize=2, label=f"{name}", **look(i))
        for style, (name, level) in zip(("--", ":", "-."), (baselines or {}).items(), strict=False):
            axes.axhline(level[metric], color=GREY, ls=style, label=name)
        axes.set_title(LABELS.get(metric, metric))
        axes.set_xticks(range(len(values)), [f"{value:g}" if np.isreal(value) else value for value in values])
    panels[0][len(metrics) // 2].set_xlabel(label or x)
    handles, labels = panels[0][0].get_legend_handles_labels()
    columns = 6 if max(map(len, labels)) < 12 else 3  # short values side by side, names of methods below each other
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title or line)
    return figure
