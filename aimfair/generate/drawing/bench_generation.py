"""How fast Stable Diffusion 2.1-base draws on this GPU: the paper's settings against fewer steps, in one run.

The network has its full size and random weights, which take the same time as trained ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from aimfair.book.bench import Row
from aimfair.environment import AimfairError
from aimfair.generate import presets
from aimfair.generate.drawing import architecture, pipelines
from aimfair.generate.drawing.architecture import Architecture


@dataclass(frozen=True)
class Setting:
    """A preset's scheduler with a number of steps, and images at a time."""

    preset: str
    steps: int
    batch_size: int

    @property
    def title(self) -> str:
        """Such as "DDIM 50 steps, 15 at a time"."""
        solver = {"DDIMScheduler": "DDIM", "DPMSolverMultistepScheduler": "DPM-Solver++"}
        return f"{solver[presets.find(self.preset).scheduler]} {self.steps} steps, {self.batch_size} at a time"


OFFICIAL = Setting("sd21-base", 50, 15)
FULL = (OFFICIAL, Setting("sd21-base-fast", 25, 64), Setting("sd21-base-fast", 20, 64))
SMALL = (Setting("sd21-base", 5, 2), Setting("sd21-base-fast", 2, 4))


def measure(device: str, tiny: bool = False, compiled: bool = True, rounds: int = 3) -> Iterator[Row]:
    """Images per second of each setting without and with torch.compile, how many times the official one (the first,
    not compiled), and the share of the device's matrix rate that the U-Net reaches in the largest batch.

    The official settings run as the paper's authors ran them: float16, nothing compiled, default memory format. The others
    are set up by :func:`aimfair.generate.drawing.pipelines.choose`. All are called by guidance 9, at 512 px, up to PIL images.
    Raises AimfairError without a GPU, unless ``tiny``: then a network in small shows that everything runs.
    """
    if torch.device(device).type != "cuda" and not tiny:
        raise AimfairError(
            f"Stable Diffusion in full size is measured on a GPU, and the device is {device}: --text-to-image tiny runs it in small"
        )
    chosen, settings = (architecture.TINY, SMALL) if tiny else (architecture.SD21_BASE, FULL)
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.float16
    pipeline = architecture.build(chosen, device, dtype)
    official = 0.0
    for compiling in (False, True)[: 2 if compiled else 1]:
        for setting in settings:
            if setting == settings[0] and not compiling:
                pass  # as it was built
            else:
                pipelines.set_up(pipeline, pipelines.Compute(compile=compiling and setting == settings[0]))
            rate = setting.batch_size / seconds(lambda s=setting: draw(pipeline, chosen, s), device, rounds)  # type: ignore[misc]
            official = official or rate
            how = f"{chosen.name}, {setting.title}{', compiled' if compiling else ''}"
            yield how, rate, "images/s"
            yield "  times the official settings", rate / official, "x"
        batch = max(setting.batch_size for setting in settings)
        reached = unet_rate(pipeline, chosen, batch, device, dtype, rounds)
        peak = matrix_rate(device, dtype)
        yield f"U-Net{', compiled' if compiling else ''}, {2 * batch} latents", reached, "TFLOP/s"
        yield f"  of the {peak:.4g} TFLOP/s of a large matrix product", 100 * reached / peak, "%"


def draw(pipeline: Any, chosen: Architecture, setting: Setting) -> Any:
    """One batch of images."""
    pipeline.scheduler = architecture.scheduler(setting.preset)
    n = setting.batch_size
    embedded = torch.zeros(n, *chosen.prompt, dtype=pipeline.unet.dtype, device=pipeline.device)
    noise = [torch.Generator().manual_seed(i) for i in range(n)]
    return pipeline(
        prompt_embeds=embedded,
        negative_prompt_embeds=embedded,
        num_inference_steps=setting.steps,
        guidance_scale=9.0,
        generator=noise,
        output_type="pil",
    ).images


@torch.inference_mode()
def unet_rate(pipeline: Any, chosen: Architecture, batch: int, device: str, dtype: torch.dtype, rounds: int) -> float:
    """TFLOP/s of the U-Net on a guided batch: what torch counts, by the time it takes."""
    side, n = chosen.unet["sample_size"], 2 * batch
    latents = torch.randn(n, 4, side, side, device=device, dtype=dtype)
    embedded = torch.zeros(n, *chosen.prompt, device=device, dtype=dtype)
    once = torch.tensor(500, device=device)
    took = seconds(lambda: pipeline.unet(latents, once, embedded, return_dict=False), device, 3 * rounds)
    return n * architecture.teraflops(chosen) / took


def matrix_rate(device: str, dtype: torch.dtype, rounds: int = 5) -> float:
    """TFLOP/s of a large square matrix product, the most that a network can reach here: measured, not read off a data sheet."""
    n = 8192 if torch.device(device).type == "cuda" else 1024
    left, right = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / seconds(lambda: left @ right, device, rounds, inner=10) / 1e12


def seconds(function: Callable[[], Any], device: str, rounds: int, inner: int = 1) -> float:
    """Median of ``rounds`` after one that warms up (or compiles), each the mean of ``inner`` calls."""
    times = []
    for _ in range(rounds + 1):
        began = perf_counter()
        for _ in range(inner):
            function()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        times.append((perf_counter() - began) / inner)
    return float(np.median(times[1:]))
