"""``aimfair generate``: draw the synthetic faces of a profile, with any text-to-image model; see first what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

from aimfair.commands import audit
from aimfair.commands._options import add, open_study
from aimfair.environment import AimfairError

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_generate(options: argparse.Namespace) -> None:
    """Draw the synthetic faces of a profile, or with any text-to-image pipeline of diffusers; resumable.

    $ aimfair generate                                          the pool of the demo study
    $ aimfair generate --audit                                  and what it shows, as aimfair audit says it
    $ aimfair generate -p images_per_group=50 --out some/folder
    $ aimfair generate --list-models                            models with a short name: licence, memory, settings
    $ aimfair generate --model sdxl --dry-run                   what is there, and what the rest takes
    $ aimfair generate --model stabilityai/sd-turbo -p steps=4 -p guidance=0 -p image_size=512 --out some/folder
    $ aimfair generate --profile paper-celeba-smiling-male --model sd21-base-fast --data path/to/celeba \\
          --audit --clip openai/clip-vit-base-patch32           a balanced, audited set at the paper's scale

    Each image has its own seed, made of task, group, prompt and replicate: the same image whatever the batch, the order,
    the number of processes or of interruptions; --draw 1 is another set. manifest.csv in the folder has a row per image.
    A batch that does not fit the memory is halved. Number format, batch size and the like are chosen for the device unless
    they are given; a short name brings its own steps and guidance. Images are kept at the profile's image_size, drawn for
    its prompts: for large ones choose a profile whose name begins with paper-, or -p image_size=512 -p prompts=contextual."""
    from aimfair.study.pool import ELSEWHERE, draw_pool, missing_images, pool_folder, pool_jobs

    if options.list_models:
        print(model_list(), end="")
        return
    about_the_audit(options)
    compute = computing(options)
    opened = open_study(options)
    folder = out_folder(options.out) or pool_folder(opened.profile)
    if options.dry_run:
        print(cost(opened, folder), end="")
        return
    jobs = pool_jobs(opened.profile)
    before = len(missing_images(opened.profile, jobs, folder))
    if options.audit:
        audit.check(opened, options)
    if before:
        print(headline(opened.profile, folder, len(jobs), len(jobs) - before), flush=True)
    began = perf_counter()
    draw_pool(opened.profile, folder, opened.device, opened.data_root, compute, options.processes)
    took = perf_counter() - began
    if before:
        print(f"{before} images in {took:.0f} seconds, {before / took:.2f} images/s with loading the model")
    print(f"The images and their manifest.csv are in {folder}", flush=True)
    if options.audit:
        elsewhere = {"generator": f"{ELSEWHERE}{folder.resolve()}"} if options.out else {}
        audit.report(opened.varied(**elsewhere), options)


def register(commands: Any) -> None:
    """Add it to the commands."""
    sub = add(commands, command_generate, study=True, pool=True)
    sub.add_argument("--out", metavar="FOLDER", help="where the images go (data/synthetic/...)")
    sub.add_argument("--list-models", action="store_true", help="show the models that have a short name, and stop")
    sub.add_argument("--dry-run", action="store_true", help="say what is there and what the rest takes, and stop")
    sub.add_argument("--processes", type=int, metavar="N", help="how many draw at once (one per GPU)")
    sub.add_argument("--batch-size", type=int, metavar="N", help="images at a time")
    sub.add_argument("--dtype", help="float32, float16 or bfloat16")
    sub.add_argument("--attention", default="", help="sliced, or a backend of diffusers (PyTorch's own)")
    yes_or_no: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": None}
    sub.add_argument("--slicing", **yes_or_no, help="decode one image after the other")
    sub.add_argument("--tiling", **yes_or_no, help="decode tile by tile; shows in the pixels")
    sub.add_argument("--compile", **yes_or_no, help="torch.compile: minutes to start, then faster")
    sub.add_argument("--offload", action="store_true", help="parts of the model wait in main memory: for a small GPU")
    sub.add_argument(
        "--audit",
        action="store_true",
        help="then audit them, as aimfair audit does; --seed and --runs are of its training",
    )
    audit.how(sub)


def about_the_audit(options: argparse.Namespace) -> None:
    """Raises AimfairError for options that say how to audit where nothing is to be audited."""
    given = {
        "--clip": options.clip,
        "--no-training": options.no_training,
        "--seed": options.seed is not None,
        "--runs": options.runs,
    }
    named = [name for name, value in given.items() if value]
    if named and not options.audit:
        another = "; another set of images is --draw 1" if "--seed" in named else ""
        raise AimfairError(f"{' and '.join(named)}: only with --audit{another}")


def out_folder(given: str | None) -> Path | None:
    """The folder that ``--out`` names. Raises AimfairError for a file."""
    if not given:
        return None
    folder = Path(given).expanduser()
    if folder.exists() and not folder.is_dir():
        raise AimfairError(f"--out {given} is a file: name a folder")
    return folder


def computing(options: argparse.Namespace) -> Any:
    """What the options say about how to compute; the rest is chosen for the device."""
    from aimfair.generate.pipelines import Compute

    names = ("dtype", "attention", "slicing", "tiling", "compile", "offload", "batch_size")
    return Compute(**{name: getattr(options, name) for name in names})


def model_list() -> str:
    """A line for each preset, and a second one with its model and commit."""
    from aimfair.generate import presets

    lines = [f"{'name':18} {'GB':>5} {'px':>5} {'steps':>5} {'guidance':>8}  licence of the weights"]
    for name in presets.available():
        p = presets.find(name)
        lines += [
            f"{name:18} {p.gigabytes:5.1f} {p.size:5} {p.steps:5} {p.guidance:8g}  {p.licence}",
            f"{'':18} {p.model}, {f'commit {p.revision[:12]}' if p.revision else 'newest commit'}"
            + (f": {p.note}" if p.note else ""),
        ]
    larger = [f"{p.fetch:g} of {name}" for name, p in ((n, presets.find(n)) for n in presets.available()) if p.fetch]
    said = f"GB: weights in the GPU's memory, and about what is fetched (more: {', '.join(larger)})."
    return "\n".join([*lines, f"{said} Read the licence first.\n"])


def headline(profile: Any, folder: Path, images: int, there: int) -> str:
    """How many images by which model, and how they are made."""
    from aimfair.generate import presets

    side = presets.find(profile.generator).size
    drawn = f"drawn at {side} px, " if side and side != profile.image_size else ""
    return (
        f"{images} images by {profile.generator}, {there} are there, {images - there} to draw: {profile.steps} steps each, "
        f"guidance {profile.guidance:g}, prompts {profile.prompts}, {drawn}kept at {profile.image_size} px in {folder}"
    )


def cost(opened: Any, folder: Path) -> str:
    """What ``--dry-run`` says: images missing, disk space, and whether the model is here.

    Raises AimfairError where drawing would, as far as that is known without loading the model.
    """
    import shutil

    from aimfair.generate import pipelines
    from aimfair.study.corpus import corpus_root
    from aimfair.study.pool import missing_images, model_of, pool_jobs, will_be_trained

    profile, jobs = opened.profile, pool_jobs(opened.profile)
    missing = len(missing_images(profile, jobs, folder))
    lines = [headline(profile, folder, len(jobs), len(jobs) - missing)]
    if missing:
        fetch = 0.0
        if will_be_trained(profile):
            corpus_root(profile, opened.data_root)
            lines += [f"The generator is trained on {profile.corpus} first, for {profile.generator_minutes:g} minutes"]
        else:
            model = pipelines.locate(model_of(profile))
            if not pipelines.at_hand(model_of(profile)):
                fetch = model.fetch or model.gigabytes
                size = f"about {fetch:g} GB" if fetch else "their size is not known"
                lines += [f"The weights are fetched first: {size}"]
        sizes = [path.stat().st_size for path in folder.rglob("*.png")] or [1.6 * profile.image_size**2]  # of a PNG
        needed = missing * sum(sizes) / len(sizes) / 1e9
        free = shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists())).free / 1e9
        lines += [
            f"The images take about {needed:.2g} GB of {free:.0f} GB free; the first batch tells how long they take"
        ]
        if needed + fetch > free:
            lines += ["The disk is too small for that: make room, or name another folder with --out"]
    return "\n".join(lines) + "\n"
