"""How fast the parts are on this machine, as ratios to what the machine can do. Nothing here is a test."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from aimfair import models
from aimfair.augment import augment
from aimfair.environment import AimfairError, aside, keep_memory
from aimfair.faces import FaceSet
from aimfair.gradients import mean_gradients
from aimfair.training import binary_cross_entropy, set_mode

Row = tuple[str, float, str]
"""(what, value, unit)"""


def machine(device: str) -> str:
    """The machine in words: processor or GPU, threads, torch."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    names = (
        re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) if platform.system() == "Linux" else []
    )
    model = [*names, platform.processor() or platform.machine()][0]
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def paired(
    first: Callable[[], object], second: Callable[[], object], device: str, rounds: int = 30
) -> tuple[float, float]:
    """Median seconds of two functions, timed turn by turn so that a busy machine slows both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 3):
        for function, into in zip((first, second), times, strict=True):
            began = perf_counter()
            function()
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= 3:  # the first turns warm caches and kernels
                into.append(perf_counter() - began)
    return float(np.median(times[0])), float(np.median(times[1]))


@contextmanager
def busy() -> Iterator[None]:
    """Beside another process that keeps one core busy."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def beside_another(rows: Sequence[Row], measure: Callable[[], Sequence[Row]]) -> list[Row]:
    """``rows`` of ``measure``, and what of each rate is left beside a :func:`busy` process, in per cent: with as many threads
    as this process has, and with one."""
    found, threads = list(rows), torch.get_num_threads()
    rates = [row for row in rows if row[2] == "images/s"]
    for number in dict.fromkeys((threads, 1)):
        torch.set_num_threads(number)
        with busy():
            slowed = [row for row in measure() if row[2] == "images/s"]
        words = f"{number} thread{'s' * (number > 1)}"
        found += [
            (f"beside a busy process, {words}", 100 * after / before, "%")
            for (_, before, _), (_, after, _) in zip(rates, slowed, strict=True)
        ]
    torch.set_num_threads(threads)
    return found


def training(backbone: str, size: int, device: str, batch_size: int = 128, rounds: int = 30) -> list[Row]:
    """The training step with its data path against a bare forward, backward and update on a resident random tensor."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16 * batch_size, 3, size, size), dtype=torch.uint8, generator=generator).to(device)
    target = torch.randint(0, 2, (16 * batch_size,), generator=generator).float().to(device)
    model = models.build(backbone, 0).to(device)
    keep_memory()
    set_mode(model, "train")
    optimiser = torch.optim.SGD(model.parameters(), 1e-6, 0.9)
    resident = models.as_input(images[:batch_size])

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=torch.device(device).type == "cuda"):
            loss = binary_cross_entropy(model(inputs).float(), labels, labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def ours() -> None:
        index = torch.randint(0, len(images), (batch_size,), generator=generator).to(device)
        step(augment(images.index_select(0, index), generator, (0.5, 1.0)), target[index])

    bare, full = paired(lambda: step(resident, target[:batch_size]), ours, device, rounds)
    return [
        (f"training {backbone} at {size} px", batch_size / full, "images/s"),
        (f"share of the bare forward/backward loop of {backbone}", 100 * bare / full, "%"),
    ]


def passes(backbone: str, size: int, device: str, n: int = 1024) -> list[Row]:
    """Evaluation and the exact gradient pass."""
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8)
    faces = FaceSet(images, torch.arange(n) % 2, torch.arange(n) // 2 % 2, np.arange(n).astype(str))
    model = models.build(backbone, 0).to(device)
    evaluation, gradient = paired(
        lambda: models.evaluate(model, faces, device), lambda: mean_gradients(model, faces, device=device), device, 5
    )
    return [("evaluation", n / evaluation, "images/s"), ("gradient pass (eval mode)", n / gradient, "images/s")]


def drawing(n: int = 512) -> list[Row]:
    """The FaceWorld renderer, both styles."""
    from aimfair import datasets

    rates = []
    for style in ("real", "web"):
        catalogue = datasets.load("faceworld", style=style)
        seconds, _ = paired(lambda c=catalogue: c.read(np.arange(n), 64), lambda: None, "cpu", 5)  # type: ignore[misc]
        rates.append((f"FaceWorld renderer, {style} style, 64 px", n / seconds, "images/s"))
    return rates


def generation(model: str, device: str, steps: int, guidance: float) -> list[Row]:
    """A batch of a text-to-image model, prompts to pixels, without writing files."""
    from aimfair.generate.draw import text_to_image
    from aimfair.generate.manifest import Job
    from aimfair.generate.pipelines import load_pipeline, settings_of

    pipeline = load_pipeline(model, device)
    n = min(pipeline.compute.batch_size, pipeline.preset.largest_batch or pipeline.compute.batch_size)
    batch = [Job("", i, "", "Portrait face photo of a smiling young female.", 1, 0, 0, i) for i in range(n)]
    paint = text_to_image(pipeline, settings_of(pipeline, steps, guidance, 64))
    seconds, _ = paired(lambda: paint(batch), lambda: None, device, 3)
    return [(f"text to image, {Path(model).name}, {steps} steps", n / seconds, "images/s")]


def record(rows: Sequence[Row], device: str, path: Path) -> None:
    """Add the measurement, with machine and date, to those that the book's appendix shows.

    Raises AimfairError where the file is none of ours or cannot be written.
    """
    try:
        kept = json.loads(path.read_text()) if path.exists() else []
        if not all(entry.keys() == {"machine", "date", "rows"} for entry in kept):
            raise ValueError("entries of another kind")
        new = {"machine": machine(device), "date": date.today().isoformat(), "rows": list(rows)}
        with aside(path, "name another file with --record") as partial:
            partial.write_text(json.dumps([*kept, new], indent=1) + "\n")
    except (ValueError, AttributeError, TypeError) as error:
        raise AimfairError(f"{path} holds no measurements of aimfair bench: name another file with --record") from error
