"""``aimfair bench``: how fast the parts are on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from aimfair.commands._options import add, open_study
from aimfair.environment import home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_bench(options: argparse.Namespace) -> None:
    """Measure how fast the parts are here: training, evaluation, gradients, drawing, text to image.

    $ aimfair bench
    $ aimfair bench --record data/published/benchmarks.json   keep it for the book's appendix
    $ aimfair bench --text-to-image full    Stable Diffusion 2.1-base in full size, the paper's settings against fewer steps
    $ aimfair bench --text-to-image tiny    the same measurement with a tiny network, on any device

    Stable Diffusion in full size has random weights here, and needs a GPU."""
    from aimfair.book import bench
    from aimfair.generate.drawing import bench_generation

    opened = open_study(options)
    p, device = opened.profile, opened.device
    print(bench.machine(device))
    rows = []
    tiny = options.text_to_image == "tiny"
    parts: Sequence[Callable[[], Iterable[Any]]] = (
        lambda: bench.training(p.backbone, p.image_size, device),
        lambda: bench.training("resnet18", p.image_size, device, rounds=8),
        lambda: bench.passes(p.backbone, p.image_size, device),
        bench.drawing,
        lambda: bench.generation(str(home() / p.generator), device, p.steps, p.guidance),
    )
    if options.text_to_image:
        parts = (lambda: bench_generation.measure(device, tiny, compiled=not options.no_compile),)
    for measure in parts:
        for what, value, unit in measure():
            print(f"  {what:50} {value:10.1f} {unit}", flush=True)
            rows.append((what, value, unit))
    if options.record:
        bench.record(rows, device, Path(options.record))


def register(commands: Any) -> None:
    """Add it to the commands."""
    bench = add(commands, command_bench, study=True)
    bench.add_argument("--record", metavar="FILE", help="keep the measurement in this JSON file, beside those there")
    bench.add_argument(
        "--text-to-image", choices=("full", "tiny"), help="only Stable Diffusion 2.1-base, random weights"
    )
    bench.add_argument("--no-compile", action="store_true", help="of that, only what is not compiled")
