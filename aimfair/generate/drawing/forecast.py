"""What a synthetic pool will cost before it is drawn: images, hours, gigabytes, and what that is based on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from aimfair import environment
from aimfair.environment import child_environment, gpus
from aimfair.generate import diffusion, presets
from aimfair.generate.drawing import memory, pipelines, sharing
from aimfair.generate.drawing.bench_generation import matrix_rate
from aimfair.generate.drawing.pipelines import Compute
from aimfair.progress import in_words
from aimfair.study import synthetic
from aimfair.study.corpus import corpus_root
from aimfair.study.grid.costs import seconds_per_image, training_seconds
from aimfair.study.profiles import Profile

SHARE = 0.3
"""Of the rate of a large matrix product that a network is taken to reach, where none was timed."""

PATIENCE = 30.0
"""Seconds that a forecast may time for on a processor: a smaller batch there, down to one image, where one draws slowly."""

BYTES_PER_PIXEL = 1.6
"""Of a PNG, where no image is there yet: faces at 64 px; larger ones take less."""


@dataclass(frozen=True)
class Forecast:
    """Of what is missing of a pool.

    images, there   how many the pool has in all, how many are drawn
    seconds         by ``processes`` at once, those of one GPU or one processor not faster than one
    training        how many of them train the generator first
    where           on what, in words: this device, or what a guess is for
    gigabytes       of the images
    basis           where the seconds come from
    fetch           gigabytes of weights that are not on this disk; None where they are not known
    free            gigabytes of disk space
    """

    images: int
    there: int
    processes: int
    seconds: float
    training: float
    where: str
    gigabytes: float
    basis: str
    fetch: float | None
    free: float

    @property
    def missing(self) -> int:
        """Images to draw."""
        return self.images - self.there


def forecast(
    profile: Profile,
    folder: Path,
    device: str,
    compute: Compute | None = None,
    processes: int | None = None,
    data_root: str = "",
) -> Forecast:
    """The cost of the pool of ``profile`` in ``folder`` on this device. Nothing is written and nothing is fetched.

    Where the model lies on this disk it is loaded, and a few images are timed. Else, for a preset, the teraflops of its
    calls are divided by :data:`SHARE` of the rate of a large matrix product, which is measured; else it is a guess.

    Raises AimfairError where drawing would: for images of other settings in the folder, a model that cannot be one, a
    corpus that is not here.
    """
    jobs = synthetic.pool_jobs(profile)
    rest = synthetic.lacking(profile, jobs, folder)
    number = sharing.how_many(device, processes)
    name = synthetic.model_of(profile)
    training = training_seconds(profile) if rest else 0.0
    if training:
        corpus_root(profile, data_root)
    elif rest:
        pipelines.located(name)
    there = not training and pipelines.at_hand(name)
    each, basis, where = 0.0, "nothing is missing", environment.device_name(device)
    if rest and there:
        with child_environment(LOCAL_WORLD_SIZE=str(number)):  # batches as each of the processes will have them
            pipeline = diffusion.load_pipeline(name, device, local_files_only=True, compute=compute)
        each, basis = timed(pipeline, rest, profile.steps, profile.guidance)
    elif rest and not training and presets.find(name).work():
        each, basis = by_rule(presets.find(name), profile, device)
    elif rest:
        each, where = seconds_per_image(profile)
        basis = f"a guess, {each:.2g} seconds per image: " + (
            "the model is not trained yet"
            if training
            else "the model is not on this disk, and there is no preset of it"
        )
    together = min(number, max(1, gpus(device)))
    preset = presets.find(name)
    fetch = 0.0 if there or training or not rest else preset.fetch or preset.gigabytes or None
    return Forecast(
        images=len(jobs),
        there=len(jobs) - len(rest),
        processes=number,
        seconds=len(rest) * each / together + training,
        training=training,
        where=where,
        gigabytes=len(rest) * bytes_per_image(folder, profile.image_size) / 1e9,
        basis=basis,
        fetch=fetch,
        free=shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists())).free / 1e9,
    )


def timed(pipeline: Any, todo: list[diffusion.Job], steps: int, guidance: float) -> tuple[float, str]:
    """Seconds per image, and how they were measured: a batch in few steps, then in a few more, as many as can be waited for.

    Where a batch does not fit the memory it is halved, as drawing will do. On a processor the batch is as large as
    :data:`PATIENCE` holds, at least one image: what one takes bounds it, and images of a batch take less than one alone.
    """
    side = pipelines.side_of(pipeline)
    few, more = min(steps, 2), min(steps, 4)

    def took(wide: int, taken: int) -> float | None:
        settings = {"steps": taken, "guidance": guidance, "negative_prompt": pipeline.preset.negative_prompt}
        paint = diffusion.text_to_image(pipeline, settings)
        began = perf_counter()
        images = memory.painted(pipeline, paint, (todo * wide)[:wide])  # in memory: nothing is left to wait for
        return None if images is None else perf_counter() - began

    wide = memory.at_once(pipeline)
    alone = took(1, few) or memory.halved(1)  # warms up too
    if pipeline._execution_device.type == "cpu":
        wide = max(1, min(wide, int(PATIENCE / (alone * (few + more) / few))))
    while (short := took(wide, few)) is None or (long := took(wide, more) if more > few else short) is None:
        wide = memory.halved(wide)
    each = max(long - short, 0.0) / (more - few) if more > few else 0.0
    seconds = (long + (steps - more) * each) / wide
    at = f" at {side} px" if side else ""
    taken = f"{few} and {more} of {steps} steps" if more > few else f"all {in_words(steps, 'step')}"
    return seconds, f"measured here: {in_words(wide, 'image')} at a time{at}, {taken}"


def by_rule(preset: presets.Preset, profile: Profile, device: str) -> tuple[float, str]:
    """Seconds per image by the teraflops of a preset, without the model."""
    gpu = torch.device(device).type != "cpu"
    dtype = getattr(torch, preset.dtype or "float16") if gpu else torch.float32
    rate = matrix_rate(device, dtype)
    work = preset.work() * preset.calls(profile.steps, profile.guidance)
    said = f"{work:.0f} teraflops per image at {100 * SHARE:.0f} % of the {rate:.3g} TFLOP/s of a matrix product here"
    return work / (SHARE * rate), f"a rule, because the model is not on this disk: {said}"


def bytes_per_image(folder: Path, size: int) -> float:
    """Mean of what lies in ``folder``, at most the first two hundred, else by a rule."""
    sizes = [path.stat().st_size for path, _ in zip(folder.rglob("*.png"), range(200), strict=False)]
    return sum(sizes) / len(sizes) if sizes else BYTES_PER_PIXEL * size**2
