"""How a prior moves the point at which a noisy cue is believed."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from aimfair.plots._style import COLOURS, GREY, WIDTH, styled


@styled
def cue_thresholds(
    noise: float, thresholds: Mapping[str, float], classes: tuple[str, str] = ("y = 0", "y = 1")
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
    axes.fill_between(x, below, where=x > lenient, color=COLOURS[1], hatch="....", lw=0, alpha=0.35)
    axes.fill_between(x, above, where=x < strict, color=COLOURS[0], hatch="////", lw=0, alpha=0.35)
    top = 1.25 * float(above.max())
    for observer, value in thresholds.items():
        left = value < 0
        axes.axvline(value, color=GREY, lw=1.2)
        axes.annotate(
            observer,
            (value, top),
            xytext=(-5 if left else 5, -3),
            textcoords="offset points",
            fontsize=9,
            ha="right" if left else "left",
            va="top",
        )
    axes.set(xlabel="cue (curve of the mouth, say)", ylabel="density", xlim=(-reach, reach), ylim=(0, top), yticks=[])
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=2)
    return figure
