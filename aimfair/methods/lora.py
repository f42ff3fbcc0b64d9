"""LoRA: freeze the biased model, add a product of two thin matrices to chosen layers, and train those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from aimfair.environment import AimfairError
from aimfair.methods import Bench, Fitted
from aimfair.methods.finetuning import FULL, finetune
from aimfair.models import head

if TYPE_CHECKING:
    from peft import PeftModel


def layers(model: nn.Module, targets: str = "auto") -> list[str]:
    """Names of the layers that get an adapter.

    targets  "auto": the fused query, key and value of every attention of a ViT, every convolution of a ResNet; or ends
             of names, separated by commas, such as "attn.qkv,attn.proj,mlp.fc1,mlp.fc2"
    Raises AimfairError where no layer has such a name.
    """
    named = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    if targets == "auto":
        attention = [name for name in named if name.endswith("attn.qkv")]
        return attention or [name for name, module in named.items() if isinstance(module, nn.Conv2d)]
    ends = tuple(f".{end.strip()}" for end in targets.split(","))
    if found := [name for name in named if f".{name}".endswith(ends)]:
        return found
    raise AimfairError(f"LoRA: no layer is called {targets!r}; there are: {', '.join(named)}")


def adapt(model: nn.Module, rank: int, alpha: float, targets: str, seed: int) -> PeftModel:
    """``model`` with adapters ``(alpha / rank) * B A`` on its :func:`layers` and a head of its own to train.

    A is drawn from ``seed``, B is 0: nothing changes yet. Only adapters and head require a gradient. ``model`` itself
    is taken apart for it; see :func:`merge`. Raises AimfairError for a rank below 1.
    """
    from peft import LoraConfig, get_peft_model

    if rank < 1:
        raise AimfairError(f"LoRA: the rank must be at least 1, got {rank!r}")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=layers(model, targets),
        modules_to_save=[head(model)],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)  # type: ignore[arg-type,return-value]


def merge(adapted: PeftModel) -> nn.Module:
    """The plain model with the adapters added to its weights; its class and the names of its tensors are as before."""
    return adapted.merge_and_unload()


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Train adapters and head on the balanced synthetic set, then merge.

    lr           of adapters and head, see :func:`aimfair.methods.finetuning.schedule`
    rank, alpha  of the adapters; the paper gives neither, nor a rate
    targets      which layers, see :func:`layers`; the paper applied LoRA to its ViT alone
    batchnorm    of a ResNet, as in all fine-tuning; a ViT has none
    """
    adapted = adapt(bench.biased_model(), hyper["rank"], hyper["alpha"], hyper["targets"], bench.seed + 1)
    sizes = {name: parameter.numel() for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    fitted = finetune(bench, hyper, set(sizes), f"LoRA rank {hyper['rank']}", adapted)
    return Fitted(merge(adapted), fitted.history, {"trained_parameters": sum(sizes.values())})


METHOD = replace(
    FULL,
    name="lora",
    title="LoRA",
    source="Table 8, row 'LoRA'; Hu et al., ICLR 2022, arXiv 2106.09685",
    fit=fit,
    defaults={"lr": 0.01, "batchnorm": "train", "rank": 8, "alpha": 16.0, "targets": "auto"},
)
