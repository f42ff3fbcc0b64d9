"""What a gap measures when there is none."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import ArrayLike

from aimfair.plots._style import COLOURS, GREY, WIDTH, styled
from aimfair.stats import percentile


@styled
def noise_floor(draws: Mapping[int, ArrayLike], label: str, marks: Mapping[int, str] | None = None) -> Figure:
    """Mean and central 95 % of a gap's draws against the number of faces in each group.

    draws  faces per group -> values of the gap in repeated test sets
    marks  faces per group -> text: vertical lines at test sets worth knowing
    """
    sizes = sorted(draws)
    low, high = np.transpose([percentile(draws[n]) for n in sizes])
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    axes.plot(sizes, [np.asarray(draws[n]).mean() for n in sizes], marker="o", color=COLOURS[0], label="mean")
    axes.fill_between(sizes, low, high, color=COLOURS[5], alpha=0.35, lw=0, label="95 % of the test sets")
    axes.set_xscale("log")
    for n, text in (marks or {}).items():
        axes.axvline(n, color=GREY, ls="--", lw=1)
        axes.annotate(text, (n, high.max()), xytext=(4, -2), textcoords="offset points", fontsize=9, va="top")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    axes.set(xlabel="faces in each group", ylabel=label, ylim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
