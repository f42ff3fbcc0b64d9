"""How training went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aimfair.plots._style import WIDTH, look, styled

if TYPE_CHECKING:
    from aimfair.training import History


@styled
def training_curve(histories: History | Mapping[str, History]) -> Figure:
    """Training loss and validation accuracy over epochs; a ring marks the epoch whose weights were kept.

    histories  one History, or several by name
    """
    by_name = histories if isinstance(histories, Mapping) else {"": histories}
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.9))
    for i, (name, history) in enumerate(by_name.items()):
        curves = (history.loss, history.validation_accuracy)
        for axes, values in zip(panels, curves, strict=True):
            axes.plot(range(1, len(values) + 1), values, lw=1.2, ms=4, label=name, **look(i))
            if 0 <= history.chosen < len(values):
                axes.scatter(history.chosen + 1, values[history.chosen], 120, facecolors="none", edgecolors="black")
    for axes, title in zip(panels, ("training loss", "validation accuracy (%)"), strict=True):
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(by_name) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
