"""``aimfair generate``: draw the synthetic faces of a profile, with any text-to-image model; see first what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

from aimfair.commands._options import add, open_study, pairs

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_generate(options: argparse.Namespace) -> None:
    """Draw the synthetic faces of a profile, or with any text-to-image pipeline of diffusers; resumable.

    $ aimfair generate                                          the pool of the demo study
    $ aimfair generate -p images_per_group=50 --out some/folder
    $ aimfair generate --list-models                            models with a short name: licence, memory, settings
    $ aimfair generate --model sd21-base-fast -p image_size=224 --out some/folder
    $ aimfair generate --model stabilityai/sd-turbo -p steps=4 -p guidance=0 -p image_size=512 --out some/folder
    $ aimfair generate --model sdxl --dry-run                   what is there, and what the rest costs here

    Each image has its own seed, made of task, group, prompt and replicate: the same image whatever the batch, the order,
    the number of processes or of interruptions. manifest.csv in the folder has a row per image. A batch that does not fit
    the memory is halved. Number format, batch size and the like are chosen for the device unless they are given; a short
    name brings its own steps and guidance."""
    from aimfair import diffusion, synthetic

    if options.list_models:
        print(model_list(), end="")
        return
    compute = computing(options)
    opened = open_study(options, changes(options))
    folder = Path(options.out) if options.out else synthetic.pool_folder(opened.profile)
    if options.dry_run:
        print(cost(opened, folder, compute, options.processes), end="")
        return
    before = len(diffusion.missing(synthetic.pool_jobs(opened.profile), folder))
    began = perf_counter()
    synthetic.generate(opened.profile, folder, opened.device, opened.data_root, compute, options.processes)
    took = perf_counter() - began
    if before:
        print(f"{before} images in {took:.0f} seconds, {before / took:.2f} images/s with loading the model")
    print(f"The images and their manifest.csv are in {folder}")


def register(commands: Any) -> None:
    """Add it to the commands."""
    sub = add(commands, command_generate, study=True)
    sub.add_argument(
        "--model", help="a short name, or the folder or hub name of any text-to-image pipeline of diffusers"
    )
    sub.add_argument("--out", metavar="FOLDER", help="where the images go (data/synthetic/...)")
    sub.add_argument("--list-models", action="store_true", help="show the models that have a short name, and stop")
    sub.add_argument("--dry-run", action="store_true", help="say what is there and what the rest would cost, and stop")
    sub.add_argument("--processes", type=int, metavar="N", help="how many draw at once (one per GPU)")
    sub.add_argument("--batch-size", type=int, metavar="N", help="images at a time")
    sub.add_argument("--dtype", help="float32, float16 or bfloat16")
    sub.add_argument("--attention", default="", help="sliced, or a backend of diffusers (PyTorch's own)")
    yes_or_no: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": None}
    sub.add_argument("--slicing", **yes_or_no, help="decode one image after the other")
    sub.add_argument("--tiling", **yes_or_no, help="decode tile by tile; shows in the pixels")
    sub.add_argument("--compile", **yes_or_no, help="torch.compile: minutes to start, then faster")


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of the profile that the model brings: a short name its steps and guidance, unless ``-p`` gives them.

    It is there and not to be trained on the profile's corpus.
    """
    from aimfair import presets

    if not options.model:
        return {}
    if options.model not in presets.available():
        return {"generator": options.model, "corpus": ""}
    preset, given = presets.find(options.model), pairs(options.parameters)
    own = {"steps": preset.steps, "guidance": preset.guidance}
    return {"generator": options.model, "corpus": ""} | {
        name: value for name, value in own.items() if name not in given
    }


def computing(options: argparse.Namespace) -> Any:
    """What the options say about how to compute; the rest is chosen for the device."""
    from aimfair.drawing.pipelines import Compute

    names = ("dtype", "attention", "slicing", "tiling", "compile", "batch_size")
    return Compute(**{name: getattr(options, name) for name in names})


def model_list() -> str:
    """A line for each preset, and a second one with its model and commit."""
    from aimfair import presets

    lines = [f"{'name':18} {'GB':>5} {'px':>5} {'steps':>5} {'guidance':>8}  licence of the weights"]
    for name in presets.available():
        p = presets.find(name)
        lines += [
            f"{name:18} {p.gigabytes:5.1f} {p.size:5} {p.steps:5} {p.guidance:8g}  {p.licence}",
            f"{'':18} {p.model}, {f'commit {p.revision[:12]}' if p.revision else 'newest commit'}"
            + (f": {p.note}" if p.note else ""),
        ]
    return "\n".join([*lines, "GB: weights in the GPU's memory, and about what is fetched. Read the licence first.\n"])


def cost(opened: Any, folder: Path, compute: Any, processes: int | None) -> str:
    """What ``--dry-run`` says."""
    from aimfair import processors
    from aimfair.drawing.forecast import forecast

    p = opened.profile
    f = forecast(p, folder, opened.device, compute, processes)
    lines = [
        f"{f.images} images by {p.generator}, {f.there} are there, {f.missing} to draw: {p.steps} steps each, "
        f"guidance {p.guidance:g}, kept at {p.image_size} px in {folder}"
    ]
    if f.missing:
        by = f"{f.processes} processes" if f.processes > 1 else "one process"
        lines += [
            f"About {f.hours:.2g} hours on {processors.name(opened.device)} ({by}) and {f.gigabytes:.2g} GB of {f.free:.0f} GB free",
            f"The hours are {f.basis}",
        ]
    if f.missing and f.fetch != 0:
        lines += [f"The weights are fetched first: {f'about {f.fetch:g} GB' if f.fetch else 'their size is not known'}"]
    if f.gigabytes + (f.fetch or 0) > f.free:
        lines += ["The disk is too small for that: make room, or name another folder with --out"]
    return "\n".join(lines) + "\n"
