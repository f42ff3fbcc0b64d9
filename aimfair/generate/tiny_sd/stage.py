"""A training stage with a budget of minutes or steps, which goes on where it was killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aimfair.environment import AimfairError
from aimfair.generate.classifier import autocast
from aimfair.progress import progress

SECONDS_BETWEEN = 120.0
"""How much of a stage a kill may cost."""

LR = 1e-3

EMA = 0.999
"""How slowly the average of the weights follows them."""

Loss = Callable[[Tensor, torch.Generator], Tensor]
"""(indices of a batch, generator of this step) -> scalar loss."""


def train_stage(
    name: str,
    modules: nn.Module,
    loss: Loss,
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

    Give ``steps`` for a result that every run repeats, or ``minutes`` for one that fits the clock. Batches and noise
    depend on ``seed`` and the step's number only, so that a stage resumed from ``folder/<name>.pt`` sees what it
    would have seen; a finished one is read back at once, one with other settings is begun anew. Returns steps, seconds and the loss along the way.

    Raises AimfairError when the loss is no longer finite.
    """
    batch_size = min(batch_size, n)
    size = sum(p.numel() for p in modules.parameters())
    settings = repr((size, n, batch_size, lr, minutes, steps, weight_decay, seed))
    state = _State(modules, folder / f"{name}.pt", settings, lr, weight_decay)
    state.resume(device)
    record, total = state.record, steps or max(1, round(60 * minutes))

    def spent() -> float:
        return record["step"] / steps if steps else record["seconds"] / max(60 * minutes, 1e-9)

    def units() -> int:
        return min(total, int(spent() * total))

    def train() -> Iterator[None]:
        """Yields once for each step, or for each second of a budget of minutes."""
        shown, saved = units(), record["seconds"]
        for index, generator in _batches(n, batch_size, seed, record["step"]):
            if spent() >= 1:
                return
            start, step = time.perf_counter(), record["step"]
            with autocast(device):
                value = loss(index.to(device), generator)
            if not torch.isfinite(value):
                raise AimfairError(
                    f"training stage {name}: the loss is {value.item()} at step {step}: lower the rate {lr}"
                )
            state.update(value, lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * spent())) / 2))
            record["seconds"] += time.perf_counter() - start
            if record["seconds"] - saved > SECONDS_BETWEEN:
                state.save()
                saved = record["seconds"]
            yield from [None] * (units() - shown)
            shown = units()

    modules.train()
    for _ in progress(train(), name, total, "step" if steps else "s", done=units()):
        pass
    state.save()
    with torch.no_grad():
        for parameter, mean in zip(state.parameters, state.average, strict=True):
            parameter.copy_(mean)
    modules.eval()
    return record


class _State:
    """How far a stage has come, in memory and in ``file``: weights, their average, the optimiser, the record."""

    def __init__(self, modules: nn.Module, file: Path, settings: str, lr: float, weight_decay: float) -> None:
        self.modules, self.file, self.settings = modules, file, settings
        self.parameters = [p for p in modules.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimiser = torch.optim.AdamW(self.parameters, lr, betas=(0.9, 0.99), weight_decay=weight_decay)
        self.record: dict[str, Any] = {"step": 0, "seconds": 0.0, "losses": []}
        self.running = 0.0

    def resume(self, device: str) -> None:
        """Read ``file`` back if it is there and was made with the same settings."""
        if not self.file.exists():
            return
        state = torch.load(self.file, map_location=device, weights_only=True)
        if state["settings"] == self.settings:
            self.modules.load_state_dict(state["modules"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average, self.record, self.running = state["average"], state["record"], state["running"]

    def save(self) -> None:
        """Write ``file``, all of it or nothing."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        state = {name: getattr(self, name) for name in ("average", "record", "running", "settings")}
        state |= {"modules": self.modules.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(state, self.file.with_suffix(".tmp"))
        self.file.with_suffix(".tmp").replace(self.file)

    def update(self, loss: Tensor, lr: float) -> None:
        """One step of the optimiser along the clipped gradient; the average and the record follow."""
        step, value = self.record["step"], float(loss.detach())
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        keep = min(EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)
        self.running = self.running * 0.98 + value * 0.02 if step else value
        if step % 50 == 0:
            self.record["losses"].append(round(self.running, 5))
        self.record["step"] = step + 1


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
