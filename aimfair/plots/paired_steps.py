"""From one setting to the next: every seed is joined with itself, so that what they share is seen to cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from aimfair.plots._style import COLOURS, LABELS, WIDTH, Results, as_frame, look, mean_and_error, styled


@styled
def paired_steps(
    results: Results,
    steps: Sequence[str],
    metrics: Sequence[str] = ("acc", "wst", "eo_max"),
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    unit: str = "seed",
) -> Figure:
    """One panel per metric: each unit a faint line over the steps, means with 95 % intervals in front.

    results    a row per method, step (column ``step``) and unit
    steps      in the order of the axis; a method may lack some
    unit       column by which the rows of different steps belong together
    baselines  horizontal lines, ``{"biased model": {"acc": ..., "wst": ...}}``
    """
    frame = as_frame(results, "method", "step", unit, *metrics)
    methods = list(frame["method"].unique())
    # Smooth edges of a hundred thin lines would make the picture twice as large.
    thin: dict[str, Any] = {"marker": ".", "ms": 4, "lw": 0.8, "alpha": 0.4, "antialiased": False}
    figure, panels = plt.subplots(1, len(metrics), figsize=(WIDTH, 3.4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        for i, method in enumerate(methods):
            table = frame[frame["method"] == method].pivot(index=unit, columns="step", values=metric)
            there = [j for j, step in enumerate(steps) if step in table]
            values = table[[steps[j] for j in there]]
            places = np.array(there) + 0.24 * (i - (len(methods) - 1) / 2)
            axes.plot(places, values.T.to_numpy(), **thin, color=look(i)["color"])
            points = [mean_and_error(values[step].dropna()) for step in values]
            errors = np.hstack([error for _, error in points])
            means = [mean for mean, _ in points]
            axes.errorbar(places, means, errors, mec="black", ls="", capsize=2, zorder=3, label=method, **look(i))
        for i, (name, level) in enumerate((baselines or {}).items(), start=len(methods)):
            style = ("--", ":", "-.")[(i - len(methods)) % 3]
            axes.axhline(level[metric], color=COLOURS[i % len(COLOURS)], ls=style, label=name)
        axes.set_title(LABELS.get(metric, metric))
        axes.set_xticks(range(len(steps)), [step.replace(" ", "\n", 1) for step in steps])
        axes.set_xlim(-0.6, len(steps) - 0.4)
    handles, names = panels[0][0].get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure
