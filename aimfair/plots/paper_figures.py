"""Figures of the paper: what AIM-Fair selects, where it lies in the network, and where classifiers put the faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from aimfair import masks
from aimfair.environment import AimfairError
from aimfair.plots._style import COLOURS, GREY, HATCHES, WIDTH, styled

KINDS = ("weights of a layer", "norm, weight", "norm, bias", "other")


@styled
def gap_rank(domain_gap: Mapping[str, float], bias_gap: Mapping[str, float], k: int) -> Figure:
    """One point per tensor: rank of its domain gap against rank of its bias gap, 1 = smallest gap.

    Selected are those left of the vertical line (k smallest domain gaps) and above the horizontal one (k largest
    bias gaps). Along a rising diagonal the two wishes contradict each other.
    """
    chosen, n = masks.select(domain_gap, bias_gap, k), len(domain_gap)
    x, y = (
        {name: i for i, name in enumerate(sorted(gap, key=lambda name: (gap[name], name)), start=1)}
        for gap in (domain_gap, bias_gap)
    )
    figure, axes = plt.subplots(figsize=(5.6, 5.0))
    for names, marker, colour, face, label in (
        (sorted(chosen), "o", COLOURS[0], COLOURS[0], "selected"),
        (sorted(set(x) - chosen), "s", COLOURS[3], "none", "not selected"),
    ):
        style: dict[str, Any] = {"marker": marker, "fc": face, "ec": colour, "label": f"{label} ({len(names)})"}
        axes.scatter([x[t] for t in names], [y[t] for t in names], 34, **style)
    axes.axvline(k + 0.5, color=GREY, ls="--", lw=1)
    axes.axhline(n - k + 0.5, color=GREY, ls=":", lw=1.5)
    axes.set(
        xlabel="rank of the domain gap, real to synthetic (1 = smallest)",
        ylabel="rank of the bias gap, biased to balanced",
        title=f"k = {k} of {n} tensors; rank correlation {masks.rank_correlation(domain_gap, bias_gap):.2f}",
    )
    axes.legend(loc="best")
    return figure


@styled
def mask_by_layer(masks: set[str] | Sequence[set[str]], names: Sequence[str]) -> Figure:
    """One bar per tensor in network order: the share of the masks (one per seed, say) that select it.

    names  all tensors of the model in network order, as ``model.named_parameters()`` gives them: of a ResNet or a ViT
    """
    sets = [masks] if isinstance(masks, set) else list(masks)
    if unknown := set().union(*sets) - set(names):
        raise AimfairError(f"the mask names tensors that the model does not have: {', '.join(sorted(unknown)[:3])}")
    share = np.array([np.mean([name in mask for mask in sets]) for name in names])
    kind = np.array([_kind(name) for name in names])
    figure, axes = plt.subplots(figsize=(WIDTH, 2.8))
    for i, label in enumerate(KINDS):
        at = np.flatnonzero(kind == i)
        if len(at):
            axes.bar(at, share[at], 0.8, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", label=label)
    stages = [_stage(name) for name in names]
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    for i in starts[1:]:
        axes.axvline(i - 0.5, color=GREY, lw=0.8)
    middles = np.add(starts, [*starts[1:], len(names)]) / 2 - 0.5
    axes.set_xticks(middles, [stages[i] for i in starts])
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.03), ylabel=f"share of {len(sets)} masks")
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _stage(name: str) -> str:
    if name.startswith(("conv1.", "bn1.", "pos_embed", "patch_embed")):
        return "stem"
    parts = name.split(".")
    return f"block {parts[1]}" if parts[0] == "blocks" else parts[0]


def _kind(name: str) -> int:
    layer, parameter = (["", *name.split(".")])[-2:]
    if "bn" in layer or "downsample.1" in name or "norm" in layer:
        return 1 if parameter == "weight" else 2
    return 0 if parameter == "weight" else 3
