"""Figures of faces and groups: sheets of images, sizes of sets, the four accuracies that are the picture of bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from aimfair.environment import AimfairError
from aimfair.metrics import CELLS, COUNTS
from aimfair.plots._style import COLOURS, HATCHES, WIDTH, Results, as_frame, group_names, mean_and_error, styled
from aimfair.stats import binomial_error


@styled
def contact_sheet(images: ArrayLike, titles: Sequence[str] = (), columns: int = 8) -> Figure:
    """Images in rows of ``columns``; show it through :func:`aimfair.plots.jpeg` to keep a notebook small.

    images  (N, 3, H, W) uint8, array or tensor
    titles  one per row, written to its left, or one per image, written above it
    """
    tiles = np.asarray(images)
    if tiles.ndim != 4 or tiles.shape[1] != 3 or tiles.dtype != np.uint8 or len(tiles) == 0:
        raise AimfairError(f"a contact sheet needs uint8 images (N, 3, H, W), got {tiles.dtype} {tiles.shape}")
    n, _, height, width = tiles.shape
    rows = math.ceil(n / columns)
    if len(titles) not in (0, rows, n):
        raise AimfairError(f"{len(titles)} titles fit neither the {rows} rows nor the {n} images")
    above = len(titles) == n and columns > 1
    # The gap between rows holds the titles; pixels of the sheet, not of the screen.
    gap = max(1, width // 16)
    head = gap + (width // 4 if above else 0)
    sheet = np.full((rows * (height + head), columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    corners = [(i // columns * (height + head) + head, i % columns * (width + gap)) for i in range(n)]
    for tile, (top, left) in zip(tiles, corners, strict=True):
        sheet[top : top + height, left : left + width] = tile.transpose(1, 2, 0)
    beside = 0.0 if above or len(titles) == 0 else 0.15 + 0.08 * max(map(len, titles))  # inches, at 9 points
    figure = plt.figure(figsize=(WIDTH, (WIDTH - beside) * sheet.shape[0] / sheet.shape[1]), layout="none")
    axes = figure.add_axes((beside / WIDTH, 0, 1 - beside / WIDTH, 1))
    axes.imshow(sheet, interpolation="nearest" if width >= 48 else "lanczos")
    axes.set_axis_off()
    for i, title in enumerate(titles):
        top, left = corners[i if above else i * columns]
        if above:
            axes.text(left, top - gap / 2, title, fontsize=9, va="bottom")
        else:
            axes.text(-gap, top + height / 2, title, fontsize=9, va="center", ha="right")
    return figure


@styled
def group_bars(results: Results, groups: Sequence[str] = ()) -> Figure:
    """Bars of the four group accuracies of each method, in the order in which the methods come.

    groups  names of the groups for the legend, see :func:`aimfair.plots.group_names`

    Whiskers are 95 %: over seeds where a method has several; from the size of the test set (1.96 binomial standard
    errors) where it has one row whose counts are known; none otherwise.
    """
    frame = as_frame(results, "method", *CELLS)
    names, by_method = groups or group_names(), list(frame.groupby("method", sort=False))
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
    for g, (cell, count) in enumerate(zip(CELLS, COUNTS, strict=True)):
        drawn = [mean_and_error(rows[cell]) for _, rows in by_method]
        errors = np.hstack([error for _, error in drawn])
        for i, (_, rows) in enumerate(by_method):
            if len(rows) == 1 and count in rows and rows[count].iloc[0] > 1:
                errors[:, i] = 1.96 * binomial_error(rows[cell].iloc[0], rows[count].iloc[0])
        looks: dict[str, Any] = {"color": COLOURS[g], "hatch": HATCHES[g], "edgecolor": "white", "label": names[g]}
        places, heights = np.arange(len(by_method)) + (g - 1.5) * 0.2, [mean for mean, _ in drawn]
        axes.bar(places, heights, 0.18, yerr=errors, error_kw={"elinewidth": 1, "capsize": 2}, **looks)
    axes.set(ylim=(0, 100), ylabel="accuracy in the group (%)")
    axes.set_xticks(range(len(by_method)), [method.replace(" ", "\n", 1) for method, _ in by_method])
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2 if max(map(len, names)) > 14 else 4)
    return figure
