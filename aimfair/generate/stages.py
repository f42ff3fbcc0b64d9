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
from aimfair.progress import progress

SECONDS_BETWEEN = 120.0
"""How much of a stage a kill may cost."""

Loss = Callable[[Tensor, torch.Generator], Tensor]
"""(indices of a batch, generator of this step) -> scalar loss."""


def autocast(device: str) -> torch.autocast:
    """bfloat16 where the processor computes in it, float32 elsewhere."""
    kind = torch.device(device).type
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = kind == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)
    return torch.autocast(kind, torch.bfloat16, enabled=native or kind == "cuda")


def train_stage(
    name: str,
    modules: nn.Module,
    loss: Loss,
    *,
    n: int,
    folder: Path,
    batch_size: int,
    lr: float,
    minutes: float = 0.0,
    steps: int = 0,
    weight_decay: float = 1e-4,
    ema: float = 0.999,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """AdamW with a short warm-up and cosine decay over the budget; ``modules`` end with their averaged weights.

    Give ``steps`` for a result that every run repeats, or ``minutes`` for one that fits the clock. Batches and noise
    depend on ``seed`` and the step's number only, so that a stage resumed from ``folder/<name>.pt`` sees what it
    would have seen; a finished one is read back at once. Returns steps, seconds and the loss along the way.

    Raises AimfairError when the loss is no longer finite.
    """
    batch_size = min(batch_size, n)
    parameters = [p for p in modules.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    record: dict[str, Any] = {"step": 0, "seconds": 0.0, "losses": []}
    settings = repr((n, batch_size, lr, minutes, steps, weight_decay, ema, seed))
    file = folder / f"{name}.pt"
    if file.exists() and (state := torch.load(file, map_location=device, weights_only=True))["settings"] == settings:
        modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        average, record = state["average"], state["record"]

    def save() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = {"modules": modules.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        torch.save(state | {"record": record, "settings": settings}, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").replace(file)

    def spent() -> float:
        return record["step"] / steps if steps else record["seconds"] / max(60 * minutes, 1e-9)

    def train() -> Iterator[None]:
        """Yields once for each step, or for each second of a budget of minutes."""
        batches = _batches(n, batch_size, seed, record["step"])
        running, since_save, units = 0.0, 0.0, int(spent() * total)
        while spent() < 1:
            start = time.perf_counter()
            step = record["step"]
            for group in optimiser.param_groups:
                group["lr"] = lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * spent())) / 2)
            index, generator = next(batches)
            with autocast(device):
                value = loss(index.to(device), generator)
            if not torch.isfinite(value):
                raise AimfairError(
                    f"training stage {name}: the loss is {value.item()} at step {step}: lower the rate {lr}"
                )
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            keep = min(ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - keep)
            running = running * 0.98 + float(value.detach()) * 0.02 if step else float(value.detach())
            if step % 50 == 0:
                record["losses"].append(round(running, 5))
            record["step"] += 1
            record["seconds"] += time.perf_counter() - start
            since_save += time.perf_counter() - start
            if since_save > SECONDS_BETWEEN:
                save()
                since_save = 0.0
            for _ in range(units, units := min(total, int(spent() * total))):
                yield

    modules.train()
    total = steps or max(1, round(60 * minutes))
    for _ in progress(train(), name, total, "step" if steps else "s", done=min(total, int(spent() * total))):
        pass
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
