"""Half a training on disk: weights, momentum and history in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SECONDS_BETWEEN = 30.0
"""A training loses at most this much, and one that is shorter never touches the disk."""


def save(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: object,
    settings: dict[str, Any],
    history: dict[str, Any],
    best: dict[str, Tensor],
) -> None:
    """Write the state after a completed epoch; the file appears whole or not at all."""
    from safetensors.torch import save_file

    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    if isinstance(loss, nn.Module):
        tensors |= {f"loss/{name}": value for name, value in loss.state_dict().items()}
    for number, parameter in enumerate(optimiser.param_groups[0]["params"]):
        momentum = optimiser.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum/{number}"] = momentum
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    metadata = {"settings": json.dumps(settings), "history": json.dumps(history)}
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, metadata)
    partial.replace(path)


def load(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, loss: object, settings: dict[str, Any], device: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Put the saved state back; returns the history and the best weights.

    A checkpoint of other settings is ignored: both are empty, and training starts afresh.
    """
    from safetensors import safe_open

    with safe_open(path, "pt", device=device) as file:
        metadata = file.metadata()
        if json.loads(metadata["settings"]) != json.loads(json.dumps(settings)):
            return {}, {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "momentum": {}, "loss": {}}
    for name, value in tensors.items():
        kind, rest = name.split("/", 1)
        parts[kind][rest] = value
    model.load_state_dict(parts["model"])
    if isinstance(loss, nn.Module):
        loss.load_state_dict(parts["loss"])
    for number, parameter in enumerate(optimiser.param_groups[0]["params"]):
        if str(number) in parts["momentum"]:
            # same memory layout as the weight, else later sums could round differently
            buffer = torch.empty_like(parameter)
            optimiser.state[parameter]["momentum_buffer"] = buffer.copy_(parts["momentum"][str(number)])
    return json.loads(metadata["history"]), parts["best"]
