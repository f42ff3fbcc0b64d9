"""Many small faces on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from aimfair.environment import AimfairError
from aimfair.plots._style import WIDTH, styled


@styled
def contact_sheet(images: ArrayLike, titles: Sequence[str] = (), columns: int = 8) -> Figure:
    """Images in rows of ``columns``; show it through :func:`aimfair.plots.jpeg` to keep a notebook small.

    images  (N, 3, H, W) uint8, array or tensor
    titles  one per row, written to its left, or one per image, written above it
    """
    tiles = np.asarray(images)
    if tiles.ndim != 4 or tiles.shape[1] != 3 or tiles.dtype != np.uint8 or len(tiles) == 0:
        raise AimfairError(f"a contact sheet wants uint8 images (N, 3, H, W), got {tiles.dtype} {tiles.shape}")
    n, _, height, width = tiles.shape
    rows = math.ceil(n / columns)
    if len(titles) not in (0, rows, n):
        raise AimfairError(f"{len(titles)} titles fit neither the {rows} rows nor the {n} images")
    above = len(titles) == n and columns > 1
    # The gap between rows holds the titles; pixels of the sheet, not of the screen.
    gap = max(1, width // 16)
    head = gap + (width // 4 if above else 0)
    sheet = np.full((rows * (height + head), columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + head) + head, i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = tile.transpose(1, 2, 0)
    beside = 0.0 if above or len(titles) == 0 else 0.15 + 0.08 * max(map(len, titles))  # inches, at 9 points
    figure = plt.figure(figsize=(WIDTH, (WIDTH - beside) * sheet.shape[0] / sheet.shape[1]), layout="none")
    axes = figure.add_axes((beside / WIDTH, 0, 1 - beside / WIDTH, 1))
    axes.imshow(sheet, interpolation="nearest" if width >= 48 else "lanczos")
    axes.set_axis_off()
    for i, title in enumerate(titles):
        row, column = divmod(i, columns) if above else (i, 0)
        top = row * (height + head) + head
        if above:
            axes.text(column * (width + gap), top - gap / 2, title, fontsize=9, va="bottom")
        else:
            axes.text(-gap, top + height / 2, title, fontsize=9, va="center", ha="right")
    return figure
