"""Figures of single chapters, in the book's style."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from scipy.stats import norm

from aimfair.environment import AimfairError
from aimfair.faces import GROUPS
from aimfair.plots import (
    COLOURS,
    GREY,
    HATCHES,
    WIDTH,
    as_frame,
    better,
    group_names,
    looks,
    seaborn_looks,
    styled,
)


@styled
def cue_thresholds(
    noise: float, thresholds: Mapping[str, float], classes: tuple[str, str]
) -> Figure:
    """Densities of a cue that is -1 or +1 plus normal noise, and the values from which each observer says 1.

    noise       standard deviation of the cue within a class
    thresholds  observer -> value of the cue from which it says 1; hatched are the errors of the strictest
                and of the most lenient observer
    """
    reach = 1 + 3 * noise
    x = np.linspace(-reach, reach, 400)
    below, above = norm.pdf(x, -1, noise), norm.pdf(x, 1, noise)
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    axes.plot(x, below, color=COLOURS[1], ls="--", lw=2, label=classes[0])
    axes.plot(x, above, color=COLOURS[0], lw=2, label=classes[1])
    strict, lenient = max(thresholds.values()), min(thresholds.values())
    hatched: dict[str, Any] = {"lw": 0, "alpha": 0.35}
    axes.fill_between(x, below, where=x > lenient, color=COLOURS[1], hatch="....", **hatched)
    axes.fill_between(x, above, where=x < strict, color=COLOURS[0], hatch="////", **hatched)
    top = 1.25 * float(above.max())
    for observer, value in thresholds.items():
        side = ("right", -5) if value < 0 else ("left", 5)
        axes.axvline(value, color=GREY, lw=1.2)
        place: dict[str, Any] = {
            "ha": side[0],
            "va": "top",
            "xytext": (side[1], -3),
            "textcoords": "offset points",
        }
        axes.annotate(observer, (value, top), fontsize=9, **place)
    axes.set(xlabel="cue (curve of the mouth, say)", ylabel="density")
    axes.set(xlim=(-reach, reach), ylim=(0, top), yticks=[])
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def mentions(table: pd.DataFrame, target: str, protected: str) -> Figure:
    """How often each phrase is said in each group: a panel per protected value, a marker per target value.

    table  a row per phrase (its index), a column for each group in the order (0,0) (0,1) (1,0) (1,1)

    Where a bank is balanced over the target, every circle sits in its square.
    """
    if table.shape[1] != 4 or table.empty:
        raise AimfairError(
            f"mentions need a row per phrase and four columns of groups, got {table.shape}"
        )
    names, rows = group_names(target, protected), range(len(table))
    size = (WIDTH, 1.2 + 0.215 * len(table))
    figure, panels = plt.subplots(1, 2, sharey=True, sharex=True, figsize=size)
    for value, axes in enumerate(panels):
        low, high = table.iloc[:, value], table.iloc[:, 2 + value]
        axes.hlines(rows, low, high, color=COLOURS[6], lw=1)
        axes.plot(
            low, rows, "s", ms=8, mfc="none", mec=COLOURS[3], mew=1.4, label=f"{target}=0"
        )
        axes.plot(high, rows, "o", ms=4.5, color=COLOURS[0], label=f"{target}=1")
        axes.set(xlabel="prompts that say it", title=names[value].split(", ")[1])
    panels[0].set_yticks(rows, list(table.index))
    panels[0].invert_yaxis()
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def eo_forms(rows: pd.DataFrame) -> Figure:
    """Printed EO minus the EO of the printed cells, in the maximum and in the mean form, by table.

    rows  see :func:`aimfair.paper.recomputed`. A distance of zero is a match. A form whose distance is
          negative is excluded: the mean of per-seed values that tables print cannot fall below the value of
          the mean cells.
    """
    rows = as_frame(rows, "table", "eo", "eo_max", "eo_mean")
    tables = sorted(rows["table"].unique())
    # Rows of one table stand side by side in the order of the table.
    place = rows.groupby("table").cumcount() / rows.groupby("table")["eo"].transform("size")
    x = rows["table"].map(tables.index) + 0.7 * place - 0.3
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
    axes.axhline(0, color=GREY, lw=1)
    axes.scatter(x, rows["eo"] - rows["eo_max"], 22, color=COLOURS[0], label="maximum form")
    mean: dict[str, Any] = {"marker": "s", "fc": "none", "ec": COLOURS[3], "label": "mean form"}
    axes.scatter(x, rows["eo"] - rows["eo_mean"], 22, **mean)
    axes.set_xticks(range(len(tables)), [f"Table {t}" for t in tables])
    axes.set(ylabel="printed EO minus recomputed (points)")
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def shares(frame: pd.DataFrame) -> Figure:
    """One point per selection: its share of the tensors against its share of the parameters, in per cent.

    frame  columns method, tensors, parameters; on the dashed line the two shares are equal
    """
    frame = as_frame(frame, "method", "tensors", "parameters")
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
    axes.plot((0, 100), (0, 100), color=GREY, ls="--", lw=1)
    style = looks(frame["method"])
    for method, rows in frame.groupby("method", sort=False):
        axes.scatter(
            rows["tensors"], rows["parameters"], 40, alpha=0.6, label=method, **style[method]
        )
    axes.set(xlabel="share of the tensors (%)", ylabel="share of the parameters (%)")
    axes.set(xlim=(-3, 103), ylim=(-3, 103))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def score_noise(
    scores: Mapping[str, Mapping[str, float]], noise: Mapping[str, Mapping[str, float]]
) -> Figure:
    """A panel per score: each tensor's score against what noise alone would measure, both axes logarithmic.

    scores, noise  name of the score -> value per tensor. On the dashed line a score is all noise.
    """
    figure, panels = plt.subplots(1, len(scores), figsize=(WIDTH, 3.6), squeeze=False)
    for axes, name in zip(panels[0], scores, strict=True):
        if scores[name].keys() != noise[name].keys():
            raise AimfairError("scores and noise must name the same tensors")
        x, y = (np.array([values[name][t] for t in scores[name]]) for values in (noise, scores))
        ends = (0.7 * min(x.min(), y.min()), 1.4 * max(x.max(), y.max()))
        axes.plot(ends, ends, color=GREY, ls="--", lw=1)
        axes.scatter(x, y, 28, alpha=0.7, linewidths=0, **looks(scores)[name])
        axes.set(
            xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="noise alone", ylabel=name
        )
    return figure


@styled
def judged(
    frame: pd.DataFrame,
    named: Sequence[str] = (),
    metric: Sequence[str] = ("wst", "eo_max"),
    judge: str = "validation_accuracy",
) -> Figure:
    """A panel per metric: the mean of each candidate over its seeds against what the judge saw; up is better.

    frame  a row per ``method`` and seed, with the columns ``judge`` and ``metric``, all in per cent
    named  methods that are shown in colour and named below; the others are grey
    """
    means = as_frame(frame, "method", judge, *metric).groupby("method")[[judge, *metric]].mean()
    named = [name for name in named if name in means.index]
    others = means.drop(index=named)
    figure, panels = plt.subplots(1, len(metric), figsize=(WIDTH, 4.3), squeeze=False)
    for i, (axes, column) in enumerate(zip(panels[0], metric, strict=True)):
        axes.scatter(others[judge], others[column], s=22, color=GREY, alpha=0.6, linewidths=0)
        for name in named:
            style = {"ms": 9, "mec": "black", "ls": "", "label": "" if i else name}
            axes.plot(*means.loc[name, [judge, column]], **style, **looks(named)[name])
        axes.set_xlabel("validation accuracy (%)")
        better(axes, column, "y")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


VERDICTS = {
    "holds": ("stands", COLOURS[2], "o"),
    "contradicted": ("contradicted", COLOURS[3], "X"),
    "undecided": ("cannot be judged", GREY, "."),
}


@styled
def effects(comparisons: pd.DataFrame, metric: Sequence[str] = ("acc", "wst", "eo")) -> Figure:
    """A panel per metric, a point per comparison: the paper's difference and ours with its 95 % interval, points.

    comparisons  columns metric, paper, ours, low, high, verdict; rows without runs are not drawn
    Colour and marker are the verdict. In the two shaded quarters the signs agree; on the dashed line the sizes.
    """
    frame = as_frame(comparisons, "paper", "ours", "low", "high", "verdict").dropna(
        subset=["paper", "ours"]
    )
    figure, panels = plt.subplots(1, len(metric), figsize=(WIDTH, 3.1), squeeze=False)
    for axes, name in zip(panels[0], metric, strict=True):
        mine = frame[frame["metric"] == name]
        across, up = (
            1.1 * max(1.0, np.abs(mine[c].to_numpy()).max(initial=0))
            for c in (["paper"], ["low", "high"])
        )
        for sign in (-1, 1):
            axes.fill_between(
                [0, sign * across], 0, sign * up, color="#EFF3F8", linewidth=0, zorder=0
            )
        axes.axline((0, 0), slope=1, color=GREY, ls="--", lw=1)
        for kind, (label, colour, marker) in VERDICTS.items():
            rows = mine[mine["verdict"] == kind]
            spread = np.array([rows["ours"] - rows["low"], rows["high"] - rows["ours"]])
            style = {
                "color": colour,
                "marker": marker,
                "ls": "",
                "elinewidth": 0.8,
                "alpha": 0.8,
            }
            axes.errorbar(rows["paper"], rows["ours"], yerr=spread, label=label, **style)
        axes.set(xlim=(-across, across), ylim=(-up, up), title=name.upper())
        axes.set(xlabel="the paper's difference")
    panels[0][0].set_ylabel("our difference")
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    return figure


@styled
def counts(table: Mapping[str, Sequence[int]], groups: Sequence[str] = ()) -> Figure:
    """Stacked bars of the four group sizes of each set; a group's share is its width, its number is written in it.

    table  set -> faces in groups (0,0) (0,1) (1,0) (1,1)
    """
    sizes = np.array(list(table.values()), dtype=float)
    if sizes.ndim != 2 or sizes.shape[1] != 4 or not (sizes.sum(1) > 0).all():
        raise AimfairError(
            f"every set needs four group sizes and at least one face, got shape {sizes.shape}"
        )
    share = 100 * sizes / sizes.sum(1, keepdims=True)
    left = np.cumsum(share, 1) - share
    names, places = groups or group_names(), range(len(table))
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.5 * len(table)))
    for g, name in enumerate(names):
        looks: dict[str, Any] = {
            "color": COLOURS[g],
            "hatch": HATCHES[g],
            "ec": "white",
            "label": name,
        }
        bars = axes.barh(places, share[:, g], 0.7, left[:, g], **looks)
        numbers = [
            f"{n:,.0f}" if s >= 4 else "" for n, s in zip(sizes[:, g], share[:, g], strict=True)
        ]
        plate = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.15"}
        axes.bar_label(bars, numbers, label_type="center", fontsize=9, bbox=plate)
    axes.set_yticks(
        places, [f"{name} ({n:,.0f})" for name, n in zip(table, sizes.sum(1), strict=True)]
    )
    axes.set(xlim=(0, 100), xlabel="share of the faces (%)")
    axes.invert_yaxis()
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=2 if max(map(len, names)) > 14 else 4)
    return figure


@styled
def group_points(frame: pd.DataFrame, label: str) -> Figure:
    """A point and its interval for each group and series, groups from left to right in the order in which they come.

    frame  a row per series and group: columns series, group (its name), value, low, high
    label  what is measured, with its unit
    """
    frame = as_frame(frame, "series", "group", "value", "low", "high")
    groups, several = list(frame["group"].unique()), list(frame["series"].unique())
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
    for i, name in enumerate(several):
        rows = frame[frame["series"] == name].set_index("group").reindex(groups)
        reach = np.clip([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0, None)
        x = np.arange(len(groups)) + 0.7 * ((i + 0.5) / len(several) - 0.5)
        axes.errorbar(
            x, rows["value"], reach, ls="", capsize=2, label=name, **looks(several)[name]
        )
    axes.set(ylabel=label, xlim=(-0.5, len(groups) - 0.5))
    axes.set_xticks(range(len(groups)), [name.replace(", ", "\n") for name in groups])
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def by_size(
    frame: pd.DataFrame,
    label: str,
    *,
    size: str = "faces in each set",
    limits: Mapping[str, float] | None = None,
    marks: Mapping[float, str] | None = None,
    log: bool = False,
) -> Figure:
    """Mean and central 95 % of repeated draws against the size of the sets, which is on a logarithmic scale.

    frame   a row per draw: columns series, size, value
    limits  series -> what the mean tends to as the sets grow: a dashed line, left out where it is not above 0
    marks   size -> text at a vertical line
    log     whether the values are on a logarithmic scale, too
    """
    frame = as_frame(frame, "series", "size", "value")
    names, sizes = list(frame["series"].unique()), sorted(frame["size"].unique())
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    columns = {
        "x": "size",
        "y": "value",
        "hue": "series",
        "style": "series",
        "hue_order": names,
        "style_order": names,
    }
    band = {"errorbar": ("pi", 95), "err_kws": {"alpha": 0.25, "lw": 0}}
    sns.lineplot(
        frame,
        ax=axes,
        lw=1.2,
        dashes=False,
        mec="none",
        **columns,
        **band,
        **seaborn_looks(names),
    )
    for name in names:
        if (limits or {}).get(name, 0.0) > 0:
            axes.axhline(limits[name], color=looks(names)[name]["color"], ls="--", lw=1)  # type: ignore[index]
    axes.set(xscale="log", xlabel=size, ylabel=label, yscale="log" if log else "linear")
    axes.set_ylim(bottom=None if log else 0)
    for place, text in (marks or {}).items():
        axes.axvline(place, color=GREY, ls="--", lw=1)
        top: dict[str, Any] = {
            "xycoords": ("data", "axes fraction"),
            "xytext": (4, -2),
            "textcoords": "offset points",
        }
        axes.annotate(text, (place, 1), fontsize=9, va="top", **top)
    axes.set_xticks(sizes)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    if legend := axes.get_legend():
        legend.remove()
    lines, labels = axes.get_legend_handles_labels()
    figure.legend(
        lines, labels, loc="outside lower center", ncols=6 if max(map(len, names)) < 12 else 3
    )
    return figure


@styled
def feature_maps(
    maps: Mapping[str, pd.DataFrame],
    names: Collection[str] = (),
    shown: Collection[int] = (0, 1, 2, 3),
) -> Figure:
    """A panel per map, two in a row. Shape tells the target; colour, and being hollow, the protected attribute.

    maps   title -> a row per face: columns x, y, target, protected
    names  of the four groups in table order
    shown  groups that are drawn fully; the others are faint
    The axes have no numbers, for places on such a map have no unit. Raises AimfairError where there is no map.
    """
    if not maps:
        raise AimfairError("nothing to draw: there are no maps")
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(WIDTH, 0.6 + 3.4 * rows), squeeze=False
    )
    for axes in panels.flat[len(maps) :]:
        axes.remove()
    looks: list[dict[str, Any]] = [
        {"marker": "o^"[target], "mec": COLOURS[(0, 3)[s]], "mfc": "none" if s else COLOURS[0]}
        for target, s in GROUPS
    ]
    for axes, (title, faces) in zip(panels.flat, maps.items(), strict=False):
        for g, (target, protected) in enumerate(GROUPS):
            here = faces[(faces["target"] == target) & (faces["protected"] == protected)]
            axes.plot(
                here["x"], here["y"], ls="", ms=5, alpha=0.8 if g in shown else 0.12, **looks[g]
            )
        axes.set_title(title, fontsize=12)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
    labels = list(names) or group_names()
    handles = [
        Line2D([], [], ls="", ms=8, label=label, **look)
        for label, look in zip(labels, looks, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=12)
    return figure
