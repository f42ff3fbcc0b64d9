"""Which scores stand above their own noise."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from aimfair.environment import AimfairError
from aimfair.plots._style import GREY, WIDTH, look, styled


@styled
def score_noise(scores: Mapping[str, Mapping[str, float]], noise: Mapping[str, Mapping[str, float]]) -> Figure:
    """A panel per score: each tensor's score against what noise alone would measure, both on logarithmic axes.

    scores, noise  name of the score -> value per tensor. On the dashed line a score is all noise.
    Raises AimfairError where the two do not name the same scores and tensors.
    """
    if scores.keys() != noise.keys() or any(scores[name].keys() != noise[name].keys() for name in scores):
        raise AimfairError("scores and noise must name the same tensors")
    figure, panels = plt.subplots(1, len(scores), figsize=(WIDTH, 3.6), squeeze=False)
    for i, (axes, name) in enumerate(zip(panels[0], scores, strict=True)):
        tensors = list(scores[name])
        x, y = (np.array([values[name][tensor] for tensor in tensors]) for values in (noise, scores))
        ends = (0.7 * min(x.min(), y.min()), 1.4 * max(x.max(), y.max()))
        axes.plot(ends, ends, color=GREY, ls="--", lw=1)
        axes.scatter(x, y, 28, alpha=0.7, linewidths=0, **look(i))
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="noise alone", ylabel=name)
    return figure
