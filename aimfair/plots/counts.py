"""How many faces each group has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from aimfair.environment import AimfairError
from aimfair.plots._style import COLOURS, HATCHES, WIDTH, group_names, styled


@styled
def counts(table: Mapping[str, Sequence[int]], groups: Sequence[str] | None = None) -> Figure:
    """Stacked bars of the four group sizes of each set; a group's share is its width, its number is written in it.

    table  set -> faces in groups (0,0) (0,1) (1,0) (1,1)
    """
    sizes = np.array(list(table.values()), dtype=float)
    if sizes.ndim != 2 or sizes.shape[1] != 4 or not (sizes.sum(1) > 0).all():
        raise AimfairError(f"every set needs four group sizes and at least one face, got shape {sizes.shape}")
    share = 100 * sizes / sizes.sum(1, keepdims=True)
    left = np.cumsum(share, 1) - share
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.5 * len(table)))
    for g, name in enumerate(groups or group_names()):
        bars = axes.barh(
            range(len(table)), share[:, g], 0.7, left[:, g], color=COLOURS[g], hatch=HATCHES[g], ec="white", label=name
        )
        numbers = [f"{n:,.0f}" if s >= 4 else "" for n, s in zip(sizes[:, g], share[:, g], strict=True)]
        plate = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.15"}
        axes.bar_label(bars, numbers, label_type="center", fontsize=9, bbox=plate)
    axes.set_yticks(range(len(table)), [f"{name} ({n:,.0f})" for name, n in zip(table, sizes.sum(1), strict=True)])
    axes.set(xlim=(0, 100), xlabel="share of the faces (%)")
    axes.invert_yaxis()
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=2 if max(map(len, groups or [""])) > 14 else 4)
    return figure
