"""Where in the network the selected tensors lie."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from aimfair.environment import AimfairError
from aimfair.plots._style import COLOURS, GREY, HATCHES, WIDTH, styled

KINDS = ("weights of a layer", "norm, weight", "norm, bias", "other")


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
