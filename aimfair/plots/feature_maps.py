"""Where classifiers put the faces of the four groups, one map beside the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aimfair.environment import AimfairError
from aimfair.faces import GROUPS
from aimfair.plots._style import COLOURS, WIDTH, group_names, styled

FAINT = 0.12


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
    labels = list(names) or group_names()
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(WIDTH, 0.6 + 3.4 * rows), squeeze=False)
    for axes in panels.flat[len(maps) :]:
        axes.remove()
    looks: list[dict[str, Any]] = [
        {"marker": "o^"[target], "mec": COLOURS[(0, 3)[s]], "mfc": "none" if s else COLOURS[0]} for target, s in GROUPS
    ]
    for axes, (title, faces) in zip(panels.flat, maps.items(), strict=False):
        for g, (target, protected) in enumerate(GROUPS):
            here = faces[(faces["target"] == target) & (faces["protected"] == protected)]
            axes.plot(here["x"], here["y"], ls="", ms=5, alpha=0.8 if g in shown else FAINT, **looks[g])
        axes.set_title(title, fontsize=12)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
    handles = [Line2D([], [], ls="", ms=8, label=label, **look) for label, look in zip(labels, looks, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=12)
    return figure
