"""Metrics with their intervals: a panel per metric, over the values of a column or row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aimfair.plots._style import GREY, LABELS, SHORT, WIDTH, Results, as_frame, looks, seaborn_looks, styled
from aimfair.stats import interval
from aimfair.training import History

MANY = 12
"""Values of a sweep above which the intervals are bands instead of bars."""


@styled
def by_metric(
    results: Results,
    x: str,
    metrics: Sequence[str] = ("acc", "wst", "eo_max"),
    *,
    series: str = "",
    order: Sequence[Any] = (),
    joined: bool = True,
    unit: str = "",
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    label: str = "",
    title: str = "",
) -> Figure:
    """A panel per metric: the mean over seeds and its 95 % interval at each value of column ``x``.

    series     column whose values have a look each; empty: there is one series
    order      values of ``x`` from left to right at equal distances; empty: numbers, placed to scale
    joined     whether lines join the points of a series
    unit       column ("seed") by which rows of different ``x`` belong together: each unit is a faint line
    baselines  horizontal lines, ``{"full fine-tuning": {"acc": ..., "wst": ...}}``
    label, title  of the horizontal axis and of the legend
    """
    frame = as_frame(results, x, *metrics, *filter(None, (series, unit)))
    names = list(frame[series].unique()) if series else [""]
    hue = frame[series] if series else [""] * len(frame)
    figure, panels = plt.subplots(1, len(metrics), figsize=(WIDTH, 3.4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        common = {"x": x, "y": metric, "hue": hue, "hue_order": names, "errorbar": interval, "ax": axes}
        if order:
            if unit:
                _join_units(axes, frame.assign(_series=hue), x, metric, unit, order, names)
            apart = (0.1 if joined else 0.24) * (len(names) - 1)
            mark = {"ms": 6, "mew": 0.8, "mec": "black" if unit else None, "lw": 1, "zorder": 3}
            bars = {"capsize": 0.1, "err_kws": {"lw": 1.5}}
            lines = {"dodge": apart or False, "linestyles": ["-" if joined else "none"] * len(names)}
            sns.pointplot(frame, order=order, **common, **mark, **bars, **lines, **seaborn_looks(names))
            upright = len(order) <= 5 or not isinstance(order[0], str)
            axes.set_xticks(range(len(order)), [_tick(value, upright) for value in order])
            axes.tick_params(axis="x", labelrotation=0 if upright else 90)
        else:
            how = {"palette": seaborn_looks(names)["palette"]}
            if frame[x].nunique() <= MANY:
                how = {"err_style": "bars", "err_kws": {"capsize": 2}, "dashes": False, "mec": "none"}
                how |= seaborn_looks(names)
            sns.lineplot(frame, style=hue, style_order=names, lw=1.2, **common, **how)
        for i, (name, level) in enumerate((baselines or {}).items()):
            axes.axhline(level[metric], color=GREY, ls=("--", ":", "-.")[i % 3], label=name)
        axes.set(title=LABELS.get(metric, metric), xlabel="", ylabel="")
    panels[0][len(metrics) // 2].set_xlabel(label)
    _legend(figure, panels[0], title)
    return figure


def _join_units(
    axes: Axes, frame: pd.DataFrame, x: str, metric: str, unit: str, order: Sequence[Any], names: Sequence[Any]
) -> None:
    """A faint line for each unit; smooth edges of a hundred of them would make the picture twice as large."""
    colours = seaborn_looks(names)["palette"]
    for i, name in enumerate(names):
        wide = frame[frame["_series"] == name].pivot(index=unit, columns=x, values=metric)
        values = wide[[value for value in order if value in wide]]
        places = [order.index(value) + 0.24 * (i - (len(names) - 1) / 2) for value in values]
        thin: dict[str, Any] = {"marker": ".", "ms": 4, "lw": 0.8, "alpha": 0.4, "antialiased": False}
        axes.plot(places, values.T.to_numpy(), color=colours[i], **thin)


def _tick(value: Any, upright: bool) -> str:
    if isinstance(value, str):
        return fill(value, 8, break_long_words=False) if upright else value
    return f"{value:g}"


def _legend(figure: Figure, panels: Sequence[Axes], title: str = "") -> None:
    """One legend below all panels, of what has a name; none of its own in any panel."""
    handles, labels = panels[0].get_legend_handles_labels()
    named = {label: handle for handle, label in zip(handles, labels, strict=True) if label}
    for axes in panels:
        if legend := axes.get_legend():
            legend.remove()
    if named:
        columns = 6 if max(map(len, named)) < 12 else 3  # short values side by side, names of methods below each other
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, title=title or None)


@styled
def by_row(
    results: Results,
    metrics: Sequence[str] = ("acc", "wst", "eo_max"),
    *,
    row: str = "method",
    order: Sequence[str] = (),
    reference: str = "",
) -> Figure:
    """A panel per metric, in it a line per row: every seed as a faint point, mean and 95 % interval as a large one.

    order      rows from top to bottom; one without results leaves a gap. Empty: as they come
    reference  the row with which the others are compared: a dashed line through its mean. Empty: the values are
               differences in points, and the dashed line is at 0
    """
    frame = as_frame(results, row, *metrics)
    names = list(order or frame[row].unique())
    base = frame[frame[row] == reference]
    as_frame(base if reference else frame)  # a reference without results is refused
    figure, panels = plt.subplots(1, len(metrics), figsize=(WIDTH, 1.0 + 0.38 * len(names)), sharey=True, squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        axes.axvline(base[metric].mean() if reference else 0, color=GREY, ls="--", lw=1.2)
        common: dict[str, Any] = {"x": metric, "y": row, "hue": row, "order": names, "hue_order": names, "ax": axes}
        how = seaborn_looks(names)
        sns.stripplot(frame, jitter=False, size=4.5, alpha=0.4, legend=False, palette=how["palette"], **common)
        mean = {
            "linestyles": "none",
            "capsize": 0.2,
            "ms": 7,
            "mec": "black",
            "mew": 0.8,
            "err_kws": {"lw": 1.5},
            "legend": False,
        }
        sns.pointplot(frame, orient="y", errorbar=interval, **mean, **how, **common)
        axes.set(xlabel=SHORT.get(metric, metric) + ("" if reference else ", points"), ylabel="")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(len(names) - 0.5, -0.5)
    return figure


@styled
def training_curve(histories: History | Mapping[str, History]) -> Figure:
    """Training loss and validation accuracy over epochs; a ring marks the epoch whose weights were kept.

    histories  one History, or several by name
    """
    by_name = histories if isinstance(histories, Mapping) else {"": histories}
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    for name, history in by_name.items():
        for axes, values in zip(panels, (history.loss, history.validation_accuracy), strict=True):
            axes.plot(range(1, len(values) + 1), values, lw=1.2, ms=4, label=name, **looks(by_name)[name])
            if 0 <= history.chosen < len(values):
                axes.scatter(history.chosen + 1, values[history.chosen], 120, facecolors="none", edgecolors="black")
    for axes, title in zip(panels, ("training loss", "validation accuracy (%)"), strict=True):
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, panels)
    return figure
