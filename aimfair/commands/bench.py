"""``aimfair bench``: how fast the parts are on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from aimfair.commands._options import add, open_study

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_bench(options: argparse.Namespace) -> None:
    """Measure how fast the parts are here: training, evaluation, gradients, drawing, text to image.

    $ aimfair bench
    $ aimfair bench --record data/published/benchmarks.json   keep it for the book's appendix
    $ aimfair bench -p generator=sd21-base-fast --text-to-image    only that, with any text-to-image model"""
    from aimfair.book import bench
    from aimfair.study.pool import model_of

    opened = open_study(options)
    p, device = opened.profile, opened.device
    print(bench.machine(device))
    rows = []
    parts: Sequence[Callable[[], Iterable[Any]]] = (
        lambda: bench.training(p.backbone, p.image_size, device),
        lambda: bench.training("resnet18", p.image_size, device, rounds=8),
        lambda: bench.passes(p.backbone, p.image_size, device),
        bench.drawing,
        lambda: bench.generation(model_of(p), device, p.steps, p.guidance),
    )
    for measure in parts[-1:] if options.text_to_image else parts:
        for what, value, unit in measure():
            print(f"  {what:50} {value:10.1f} {unit}", flush=True)
            rows.append((what, value, unit))
    if options.record:
        bench.record(rows, device, Path(options.record))


def register(commands: Any) -> None:
    """Add it to the commands."""
    bench = add(commands, command_bench, study=True)
    bench.add_argument("--record", metavar="FILE", help="keep the measurement in this JSON file, beside those there")
    bench.add_argument("--text-to-image", action="store_true", help="measure only the text-to-image model")
