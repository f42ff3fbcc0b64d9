"""Text to image: prompts -> labelled images on disk, with any text-to-image pipeline of diffusers.

Every image is a job with a seed of its own, so that a pool can be drawn in parts or by several processes, killed and
resumed, or enlarged later, and is always the same pool.
"""

from __future__ import annotations

import gc
import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from torch import Tensor

from aimfair.cluster import local_cluster
from aimfair.environment import AimfairError, gpus
from aimfair.generate import manifest
from aimfair.generate.manifest import Job, missing
from aimfair.generate.pipelines import settings_of, unknown_arguments
from aimfair.generate.presets import Preset
from aimfair.progress import progress

if TYPE_CHECKING:
    from PIL.Image import Image

Painter = Callable[[Sequence[Job]], "list[Image]"]
"""Draws one image for each job of a batch."""


def generate(pipeline: Any, todo: Sequence[Job], folder: str | Path, **settings: Any) -> Path:
    """Draw what is missing of ``todo`` below ``folder`` with a loaded pipeline; returns the manifest.

    ``settings`` are those of :func:`draw`. One run at a time draws into a folder; whatever stops it, starting it again
    draws the rest. Images that come out black (the safety checker of Stable Diffusion 1.x, or an overflow) are left out
    with a warning, and listed in ``black.csv``.

    Raises AimfairError as :func:`draw` does, if nothing can be written, and if all images are black.
    """
    folder = Path(folder)
    with _writing(folder, todo) as rest:
        _show(draw(pipeline, rest, folder, **settings), todo, rest)
    return folder / "manifest.csv"


def generate_in_processes(
    load: Callable[[str], Any],
    todo: Sequence[Job],
    folder: str | Path,
    *,
    device: str = "cpu",
    processes: int | None = None,
    **settings: Any,
) -> Path:
    """:func:`generate`, with the list shared out among ``processes``; None is one per GPU, and one on a processor.

    load  (device) -> pipeline; it goes to other processes, so it is a function of a module or a ``functools.partial`` of
          one. A single process draws in place.

    A process that dies is replaced, and the new one draws what its part still lacks. Raises AimfairError as
    :func:`generate` does, for an error in a process, and where the same part has cost two processes their life.
    """
    folder = Path(folder)
    number = min(process_count(device, processes), max(1, len(missing(todo, folder))))
    if number == 1:
        return generate(load(device), todo, folder, **settings)
    from distributed import KilledWorker

    with _writing(folder, todo) as rest, local_cluster(number, device) as client:
        own = "cuda" if gpus(device) else device
        parts = [
            client.submit(_draw_part, load, rest[n::number], folder, own, settings, pure=False) for n in range(number)
        ]
        try:
            _show(_arrivals(parts, rest, folder), todo, rest)
            for part in parts:
                part.result()
        except AimfairError:
            raise
        except Exception as error:
            why = (
                f"is the memory enough for {number} processes?"
                if isinstance(error, KilledWorker)
                else repr(error)[:200]
            )
            raise AimfairError(
                f"processes died or failed, and {len(missing(rest, folder))} of {len(rest)} images are missing: the others "
                f"are kept; {why} Start again to go on"
            ) from error
    return folder / "manifest.csv"


def _show(images: Iterator[None], todo: Sequence[Job], rest: Sequence[Job]) -> None:
    """Draw ``rest``, of which ``images`` yields once for each, and show how much of ``todo`` is there."""
    for _ in progress(images, "generating", len(todo), "image", len(todo) - len(rest)):
        pass


def process_count(device: str, processes: int | None) -> int:
    """How many processes draw: as asked, else one per GPU that ``device`` leaves to choose from; one inside a worker.

    Raises AimfairError for less than one.
    """
    if processes is not None and processes < 1:
        raise AimfairError(f"--processes {processes}: at least one is needed")
    if multiprocessing.current_process().daemon:  # a worker may start no processes
        return 1
    return processes or max(1, gpus(device))


def _draw_part(
    load: Callable[[str], Any], todo: Sequence[Job], folder: Path, device: str, settings: Mapping[str, Any]
) -> None:
    """What a worker does with its part of the list, of which one that died may have drawn some."""
    pipeline = load(device)
    with _told(folder):
        for _ in draw(pipeline, missing(todo, folder), folder, **settings):
            pass


def _arrivals(parts: Sequence[Any], rest: Sequence[Job], folder: Path, every: float = 1.0) -> Iterator[None]:
    """Yields once for each image of ``rest`` that appears in ``folder``, until all ``parts`` are done or have failed."""
    from distributed import wait

    there, done = 0, False
    while not done:
        with suppress(TimeoutError):
            done = bool(wait(parts, timeout=every))
        before, there = there, len(rest) - len(missing(rest, folder))
        yield from [None] * (there - before)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Raises AimfairError in place of an OSError: a full disk, a folder that is read-only."""
    try:
        yield
    except OSError as error:
        raise AimfairError(
            f"cannot write to {folder} ({error.strerror or error}): images already there are kept; make room and start again"
        ) from error


@contextmanager
def _writing(folder: Path, todo: Sequence[Job]) -> Iterator[list[Job]]:
    """Around a run that draws into ``folder``: one run at a time, on a tidy manifest with the columns of ``todo``.

    Yields what is missing. Raises AimfairError if the folder cannot be written to, and if all of ``todo`` are black;
    warns if some are.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "manifest.lock"):
            manifest.tidy(folder, todo)
            manifest.check_same(folder, todo, {})
            yield missing(todo, folder)
    there = set(manifest.drawn(folder)["path"])
    if todo and not any(job.path in there for job in todo):
        raise AimfairError(
            f"{len(todo)} of {len(todo)} images came out black: is a safety checker or a half-precision overflow at work?"
        )
    if black := manifest.black(todo, folder):
        what = f"{len(black)} of {len(todo)} images came out black and were left out ({black[0].path}, ...)"
        warnings.warn(f"{what}: to draw them again, delete {folder / 'black.csv'}", stacklevel=4)


def draw(
    pipeline: Any,
    todo: Sequence[Job],
    folder: Path,
    *,
    steps: int,
    guidance: float,
    size: int,
    batch_size: int | None = None,
    painter: Callable[[Any, Mapping[str, Any]], Painter] | None = None,
) -> Iterator[None]:
    """Draw ``todo`` as PNG files of ``size`` x ``size`` pixels; yields once for each.

    The model draws at its own size and the image is resized (Lanczos). An image appears whole or not at all, and its
    row follows. Each image has its own CPU generator, so that neither order nor batch matters; only the order of
    floating-point sums inside the network depends on the size of a batch, which may change a pixel by one grey level.
    Where a batch does not fit the memory it is halved, and those after it stay so.

    batch_size  None is what was chosen for the device when the pipeline was loaded; a preset may allow no more than some
    painter     (pipeline, settings of the manifest) -> painter; None is :func:`text_to_image`

    Raises AimfairError if the folder holds images of other settings, and if one image alone does not fit the memory.
    """
    for name, number, least in (("steps", steps, 1), ("guidance", guidance, 0), ("size", size, 1)):
        if not least <= number < inf:
            raise AimfairError(f"{name} must be at least {least}, got {number}")
    settings = settings_of(pipeline, steps, guidance, size)
    manifest.write_settings(folder, settings)
    paint = (painter or text_to_image)(pipeline, settings | {"guidance": guidance})
    most = pipeline.preset.largest_batch
    if most and (batch_size or 0) > most:
        warnings.warn(f"this model draws {most} at a time, not {batch_size}: see its preset", stacklevel=2)
    wide = min(batch_size or pipeline.compute.batch_size, most or len(todo), len(todo))
    for batch, images in _paint_all(pipeline, paint, todo, wide):
        dark = [job for job, image in zip(batch, images, strict=True) if image.getbbox() is None]
        with ThreadPoolExecutor(4) as pool:  # ends before anything is yielded, see aimfair.datasets._images
            written = {
                job: pool.submit(_write, image, folder / job.path, size)
                for job, image in zip(batch, images, strict=True)
                if job not in dark
            }
        good = [job for job in written if written[job].exception() is None]
        for name, jobs in (("manifest.csv", good), ("black.csv", dark)):
            manifest.append(folder, [vars(job) | {"path": job.path} for job in jobs], name)
        for future in written.values():
            future.result()  # raises what went wrong with an image, after the others have their rows
        yield from [None] * len(batch)


def _paint_all(
    pipeline: Any, paint: Painter, todo: Sequence[Job], wide: int
) -> Iterator[tuple[Sequence[Job], list[Image]]]:
    """Batches of ``wide`` jobs with their images; the last one is filled up, so that all are painted at the same size."""
    start, autoencoder = 0, pipeline.vae.dtype
    while start < len(todo):
        batch = list(todo[start : start + wide])
        try:
            images = paint(batch + batch[-1:] * (wide - len(batch)))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        else:
            start += len(batch)
            yield batch, images[: len(batch)]
            continue
        # Outside the handler, which holds on to the tensors of the failed call, as accelerate's own search for a batch size
        # does. Stable Diffusion XL takes float32 for the decoding and, if that fails, stays there; with offloading whatever
        # part was at work is still on the GPU.
        pipeline.vae.to(dtype=autoencoder)
        pipeline.maybe_free_model_hooks()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if wide == 1:
            raise AimfairError(
                "the memory is too small for one image at a time: images already there are kept; choose a smaller model "
                "or --dtype float16, or free memory, and start again"
            )
        smaller = (wide + 1) // 2
        warnings.warn(f"{wide} images at a time do not fit the memory: going on with {smaller}", stacklevel=3)
        wide = smaller


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of the GPU or of the machine is full."""
    texts = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED", "CUDNN_STATUS_NOT_SUPPORTED")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def _write(image: Image, path: Path, size: int) -> None:
    """Write one PNG under its final name only when it is whole."""
    from PIL.Image import Resampling

    if image.size != (size, size):
        image = image.resize((size, size), Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        image.convert("RGB").save(partial, format="PNG", compress_level=4)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def text_to_image(pipeline: Any, settings: Mapping[str, Any]) -> Painter:
    """Draws each job's image from its prompt and seed alone.

    Raises AimfairError for a pipeline that does not take what its preset or the settings ask it for.
    """
    arguments = prompt_arguments(pipeline, settings)
    fixed = call_arguments(pipeline.preset, settings["steps"], settings["guidance"])
    if unknown := unknown_arguments(type(pipeline), fixed):
        raise AimfairError(f"{type(pipeline).__name__} takes no {', '.join(unknown)}: it needs a preset of its own")

    def paint(batch: Sequence[Job]) -> list[Image]:
        noise = [torch.Generator().manual_seed(job.seed) for job in batch]
        return pipeline(**arguments(batch), **fixed, generator=noise, output_type="pil").images

    return paint


def call_arguments(preset: Preset, steps: int, guidance: float) -> dict[str, Any]:
    """What the pipeline of ``preset`` is called with, beside prompts and noise."""
    side = {"height": preset.size, "width": preset.size} if preset.size else {}
    return {"num_inference_steps": steps, preset.guidance_argument: guidance, **side, **preset.arguments}


def prompt_arguments(pipeline: Any, settings: Mapping[str, Any]) -> Callable[[Sequence[Job]], dict[str, Any]]:
    """(jobs) -> the pipeline's arguments for their prompts; Stable Diffusion encodes each distinct prompt only once."""
    from diffusers import StableDiffusionPipeline

    negative = settings["negative_prompt"]
    if not isinstance(pipeline, StableDiffusionPipeline):
        if negative and unknown_arguments(type(pipeline), {"negative_prompt": negative}):
            raise AimfairError(f"{type(pipeline).__name__} takes no negative prompt")
        return lambda batch: (
            {"prompt": [job.prompt for job in batch]}
            | ({"negative_prompt": [negative] * len(batch)} if negative else {})
        )
    known: dict[str, Tensor] = {}

    @torch.inference_mode()
    def encode(text: str) -> Tensor:
        if text not in known:
            where = pipeline._execution_device
            known[text] = pipeline.encode_prompt(text, where, 1, do_classifier_free_guidance=False)[0][0]
        return known[text]

    def arguments(batch: Sequence[Job]) -> dict[str, Any]:
        embedded = {"prompt_embeds": torch.stack([encode(job.prompt) for job in batch])}
        if settings["guidance"] <= 1:
            return embedded
        return embedded | {"negative_prompt_embeds": encode(negative).expand(len(batch), -1, -1)}

    return arguments
