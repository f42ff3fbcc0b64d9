"""The two rankings of AIM-Fair against each other, and what their intersection keeps."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from aimfair import masks
from aimfair.plots._style import COLOURS, GREY, styled


@styled
def gap_rank(domain_gap: Mapping[str, float], bias_gap: Mapping[str, float], k: int) -> Figure:
    """One point per tensor: rank of its domain gap against rank of its bias gap, 1 = smallest gap.

    Selected are those left of the vertical line (k smallest domain gaps) and above the horizontal one (k largest
    bias gaps). Along a rising diagonal the two wishes contradict each other.
    """
    chosen = masks.select(domain_gap, bias_gap, k)
    x, y = _ranks(domain_gap), _ranks(bias_gap)
    n = len(x)
    figure, axes = plt.subplots(figsize=(5.6, 5.0))
    for names, marker, filled, label in (
        (sorted(chosen), "o", True, f"selected ({len(chosen)})"),
        (sorted(set(x) - chosen), "s", False, f"not selected ({n - len(chosen)})"),
    ):
        colour = COLOURS[0 if filled else 3]
        face = colour if filled else "none"
        axes.scatter([x[t] for t in names], [y[t] for t in names], 34, marker=marker, fc=face, ec=colour, label=label)
    axes.axvline(k + 0.5, color=GREY, ls="--", lw=1)
    axes.axhline(n - k + 0.5, color=GREY, ls=":", lw=1.5)
    correlation = masks.rank_correlation(domain_gap, bias_gap)
    axes.set(
        xlabel="rank of the domain gap, real to synthetic (1 = smallest)",
        ylabel="rank of the bias gap, biased to balanced",
        title=f"k = {k} of {n} tensors; rank correlation {correlation:.2f}",
    )
    axes.legend(loc="best")
    return figure


def _ranks(gap: Mapping[str, float]) -> dict[str, int]:
    return {name: i for i, name in enumerate(sorted(gap, key=lambda name: (gap[name], name)), start=1)}
