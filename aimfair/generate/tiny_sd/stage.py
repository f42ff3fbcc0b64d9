"""A training stage with a budget of minutes or steps, which goes on where it was killed."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aimfair.environment import AimfairError, aside
from aimfair.generate.classifier import autocast
from aimfair.progress import progress

SECONDS_BETWEEN = 120.0
"""How much of a stage a kill may cost."""

LR = 1e-3

EMA = 0.999
"""How slowly the average of the weights follows them."""


def train_stage(
    name: str,
    modules: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    *,
    n: int,
    folder: Path,
    batch_size: int,
    lr: float = LR,
    minutes: float = 0.0,
    steps: int = 0,
    weight_decay: float = 1e-4,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """AdamW with a short warm-up and cosine decay over the budget; ``modules`` end with their averaged weights.

    loss  (indices of a batch of ``n``, generator of this step) -> scalar

    Give ``steps`` for a result that every run repeats, or ``minutes`` for one that fits the clock. Batches and noise
    depend on ``seed`` and the step's number only, so that a stage resumed from ``folder/<name>.pt`` sees what it
    would have seen; a finished one is read back at once, one with other settings is begun anew.

    Returns steps, seconds and the loss along the way. Raises AimfairError when the loss is no longer finite.
    """
    batch_size = min(batch_size, n)
    size, file = sum(p.numel() for p in modules.parameters()), folder / f"{name}.pt"
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    state: dict[str, Any] = {
        "settings": repr((size, n, batch_size, lr, minutes, steps, weight_decay, seed)),
        "average": [p.detach().clone() for p in parameters],
        "record": {"step": 0, "seconds": 0.0, "losses": []},
        "running": 0.0,
    }
    if file.exists():
        try:
            kept = torch.load(file, map_location=device, weights_only=True)
        except Exception:  # whatever a damaged file causes
            warnings.warn(f"{file} is damaged: this stage starts afresh", stacklevel=2)
            kept = {}
        if kept.get("settings") == state["settings"]:
            modules.load_state_dict(kept.pop("modules"))
            optimiser.load_state_dict(kept.pop("optimiser"))
            state = kept
    record, average = state["record"], state["average"]

    def spent() -> float:
        return record["step"] / steps if steps else record["seconds"] / max(60 * minutes, 1e-9)

    def save() -> None:
        whole = state | {"modules": modules.state_dict(), "optimiser": optimiser.state_dict()}
        with aside(file) as partial:
            torch.save(whole, partial)

    modules.train()
    saved, step = record["seconds"], record["step"]
    batches = takewhile(lambda _: spent() < 1, _batches(n, batch_size, seed, step))
    what = name if steps else f"{name}, {minutes:g} minutes"
    for index, generator in progress(batches, what, steps or None, "step", step):
        start, step = time.perf_counter(), record["step"]
        with autocast(device):
            now = loss(index.to(device), generator)
        value = float(now.detach())
        if not math.isfinite(value):
            raise AimfairError(f"training stage {name}: the loss is {value} at step {step}: lower the rate {lr}")
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * spent())) / 2)
        optimiser.zero_grad(set_to_none=True)
        now.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        keep = min(EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - keep)
        state["running"] = state["running"] * 0.98 + value * 0.02 if step else value
        if step % 50 == 0:
            record["losses"].append(round(state["running"], 5))
        record["step"] = step + 1
        record["seconds"] += time.perf_counter() - start
        if record["seconds"] - saved > SECONDS_BETWEEN:
            save()
            saved = record["seconds"]
    save()
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    modules.eval()
    return record


def _batches(n: int, batch_size: int, seed: int, step: int) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Endless shuffled batches from ``step`` on, each with a generator of its own for the noise."""
    epoch, order = -1, torch.empty(0)
    while True:
        now, batch = divmod(step, n // batch_size)
        if now != epoch:
            epoch = now
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        noise = torch.Generator().manual_seed((seed * 1_000_003 + step) * 2 + 1)
        yield order[batch * batch_size : (batch + 1) * batch_size], noise
        step += 1
