"""What a judge sees of many candidates, beside what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from aimfair.plots._style import GREY, WIDTH, as_frame, better, look, styled


@styled
def judged(
    frame: pd.DataFrame,
    named: Sequence[str] = (),
    metric: Sequence[str] = ("wst", "eo_max"),
    judge: str = "validation_accuracy",
) -> Figure:
    """A panel per metric: the mean of each candidate over its seeds, against what the judge saw of it; up is better.

    frame  a row per ``method`` and seed, with the columns ``judge`` and ``metric``, all in per cent
    named  methods that are shown in colour and named below; the others are grey
    """
    means = as_frame(frame, "method", judge, *metric).groupby("method", sort=False)[[judge, *metric]].mean()
    others = means.drop(index=[name for name in named if name in means.index])
    figure, panels = plt.subplots(1, len(metric), figsize=(WIDTH, 4.3), squeeze=False)
    for i, (axes, column) in enumerate(zip(panels[0], metric, strict=True)):
        axes.scatter(others[judge], others[column], s=22, color=GREY, alpha=0.6, linewidths=0)
        for place, name in enumerate(name for name in named if name in means.index):
            style = look(place)
            axes.plot(*means.loc[name, [judge, column]], ms=9, mec="black", ls="", label="" if i else name, **style)
        axes.set_xlabel("validation accuracy (%)")
        better(axes, column, "y")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
