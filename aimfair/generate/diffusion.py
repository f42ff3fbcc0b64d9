"""Text to image: prompts -> labelled images on disk, with any text-to-image pipeline of diffusers.

Every image is a job with a seed of its own, so that a pool can be drawn in parts, killed and resumed, or
enlarged later, and is always the same pool. The manifest says how each image was made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from torch import Tensor

from aimfair.environment import AimfairError
from aimfair.generate.drawing.jobs import Job, jobs
from aimfair.generate.drawing.manifest import COLUMNS, SETTINGS, append, missing, read_manifest, same_settings, tidy
from aimfair.generate.drawing.memory import Painter, at_once, halved, painted
from aimfair.generate.drawing.pipelines import fingerprint, listed, load_pipeline, refused, side_of
from aimfair.generate.presets import Preset
from aimfair.progress import progress

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["COLUMNS", "SETTINGS", "Job", "fingerprint", "generate", "jobs", "load_pipeline", "missing", "read_manifest"]


def generate(
    pipeline: Any,
    todo: Sequence[Job],
    folder: str | Path,
    *,
    steps: int,
    guidance: float,
    size: int,
    batch_size: int | None = None,
    negative_prompt: str = "",
    painter: Callable[[Any, Mapping[str, Any]], Painter] | None = None,
) -> Path:
    """Draw what is missing of ``todo`` as PNG files of ``size`` x ``size`` pixels below ``folder``; returns the manifest.

    The model draws at its own size and the image is resized (Lanczos). An image appears whole or not at all, and its
    row follows; whatever stops the run, starting it again draws the rest. Each image has its own CPU generator, so that
    neither order nor batch matters; only the order of floating-point sums inside the network depends on
    ``batch_size``, which may change a pixel by one grey level. The last batch is filled up to the same size. Where a
    batch does not fit the memory it is halved, and those after it stay so. ``batch_size`` None is what was chosen
    for the device when the pipeline was loaded.

    ``painter`` makes the function that draws a batch out of the pipeline and the settings of the manifest; default is
    :func:`text_to_image`.

    Images that come out black (the safety checker of Stable Diffusion 1.x, or an overflow) are left out with a warning.

    Raises AimfairError if the folder holds images of other settings, nothing can be written, one image alone does not fit
    the memory, or all are black.
    """
    folder = Path(folder)
    with writing(folder, todo):
        rest = missing(todo, folder)
        images = draw(pipeline, todo, folder, steps, guidance, size, batch_size, negative_prompt, painter)
        black = [path for path in progress(images, "generating", len(todo), "image", len(todo) - len(rest)) if path]
    tell_black(black, len(rest))
    return folder / "manifest.csv"


@contextmanager
def writing(folder: Path, todo: Sequence[Job]) -> Iterator[None]:
    """Around a run that draws into ``folder``: one run at a time, on a tidy manifest with the columns of ``todo``.

    Raises AimfairError in place of an OSError: a full disk, a folder that is read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "manifest.lock"):
            tidy(folder, columns(todo))
            yield
    except OSError as error:
        raise AimfairError(no_room(folder, error)) from error


def no_room(folder: Path, error: OSError) -> str:
    """What is said of an image or a row that could not be written."""
    return f"cannot write to {folder} ({error.strerror or error}): images already there are kept; make room and start again"


def draw(
    pipeline: Any,
    todo: Sequence[Job],
    folder: Path,
    steps: int,
    guidance: float,
    size: int,
    batch_size: int | None = None,
    negative_prompt: str = "",
    painter: Callable[[Any, Mapping[str, Any]], Painter] | None = None,
    allowed: Callable[[], bool] = lambda: True,
) -> Iterator[str]:
    """What :func:`generate` does inside :func:`writing`; several processes may do it at once, with jobs of their own.

    Yields for each image its path if it came out black, else "". Ends early once ``allowed()`` is false.
    """
    model, revision = getattr(pipeline, "source", (type(pipeline).__name__, ""))
    preset = getattr(pipeline, "preset", Preset(model))
    settings = {
        "model": model,
        "revision": revision,
        "scheduler": getattr(pipeline, "scheduler_name", type(pipeline.scheduler).__name__),
        "steps": steps,
        "guidance": float(guidance),
        "size": size,
        "negative_prompt": negative_prompt or preset.negative_prompt,
        "drawn": str(side_of(pipeline) or ""),
        "dtype": str(getattr(pipeline, "dtype", "")).removeprefix("torch."),
        "arguments": listed(preset.arguments),
    }
    same_settings(folder, todo, settings)
    paint = (painter or text_to_image)(pipeline, settings)
    yield from _draw(pipeline, paint, missing(todo, folder), folder, settings, at_once(pipeline, batch_size), allowed)


def tell_black(black: Sequence[str], drawn: int) -> None:
    """Warn about images that came out black and were left out. Raises AimfairError if all of those drawn did."""
    if not black:
        return
    said = f"{len(black)} of {drawn} images came out black and were left out ({black[0]}, ...)"
    if len(black) == drawn:
        raise AimfairError(f"{said}: is a safety checker or a half-precision overflow at work?")
    warnings.warn(said, stacklevel=3)


def columns(todo: Sequence[Job]) -> tuple[str, ...]:
    """:data:`COLUMNS`, then the fields that these jobs have beyond those of :class:`Job`."""
    known = {*COLUMNS, *(f.name for f in fields(Job))}
    return (*COLUMNS, *(name for job in todo[:1] for name in vars(job) if name not in known))


def text_to_image(pipeline: Any, settings: Mapping[str, Any]) -> Painter:
    """Draws each job's image from its prompt and seed alone.

    Raises AimfairError for a pipeline that does not take what its preset or the settings ask it for.
    """
    arguments = prompt_arguments(pipeline, settings)
    preset = getattr(pipeline, "preset", Preset(""))
    fixed = call_arguments(preset, settings["steps"], settings["guidance"])
    if unknown := refused(type(pipeline), fixed):
        raise AimfairError(f"{type(pipeline).__name__} takes no {', '.join(unknown)}: it needs a preset of its own")

    def paint(batch: Sequence[Job]) -> list[Image]:
        noise = [torch.Generator().manual_seed(job.seed) for job in batch]
        return pipeline(**arguments(batch), **fixed, generator=noise, output_type="pil").images

    return paint


def call_arguments(preset: Preset, steps: int, guidance: float) -> dict[str, Any]:
    """What the pipeline of ``preset`` is called with, beside prompts and noise."""
    side = {"height": preset.size, "width": preset.size} if preset.size else {}
    return {"num_inference_steps": steps, preset.guidance_argument: guidance, **side, **preset.arguments}


def _draw(
    pipeline: Any,
    paint: Painter,
    rest: Sequence[Job],
    folder: Path,
    settings: Mapping[str, Any],
    batch_size: int,
    allowed: Callable[[], bool],
) -> Iterator[str]:
    """Draw in batches while the previous batch is written by a few threads; see :func:`draw`."""
    batch_size, start = min(batch_size, len(rest)), 0
    with ThreadPoolExecutor(4) as pool:
        written: list[tuple[Job, Future]] = []
        try:
            while start < len(rest) and allowed():
                batch = list(rest[start : start + batch_size])
                images = painted(pipeline, paint, batch + batch[-1:] * (batch_size - len(batch)))
                if images is None:
                    batch_size = halved(batch_size)
                    continue
                done, written = written, []
                _record(folder, done, settings, allowed)
                start += len(batch)
                for job, image in zip(batch, images[: len(batch)], strict=True):
                    black = image.getbbox() is None
                    if not black:
                        written.append((job, pool.submit(_write, image, folder / job.path, settings["size"])))
                    yield job.path if black else ""
        finally:
            _record(folder, written, settings, allowed)


def prompt_arguments(pipeline: Any, settings: Mapping[str, Any]) -> Any:
    """(jobs) -> the pipeline's arguments for their prompts; Stable Diffusion encodes each distinct prompt only once."""
    from diffusers import StableDiffusionPipeline

    negative = settings["negative_prompt"]
    guided = settings["guidance"] > 1
    if not isinstance(pipeline, StableDiffusionPipeline):
        if negative and refused(type(pipeline), {"negative_prompt": negative}):
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

    def arguments(batch: Sequence[Job]) -> dict[str, Tensor]:
        embedded = {"prompt_embeds": torch.stack([encode(job.prompt) for job in batch])}
        return embedded | ({"negative_prompt_embeds": encode(negative).expand(len(batch), -1, -1)} if guided else {})

    return arguments


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


def _record(
    folder: Path,
    written: Sequence[tuple[Job, Future]],
    settings: Mapping[str, Any],
    allowed: Callable[[], bool],
) -> None:
    """Append a row for each image that was written; then raise what went wrong with the others, if anything did."""
    rows = [{**vars(job), **settings, "path": job.path} for job, future in written if future.exception() is None]
    if rows:
        append(folder, rows, allowed)
    for _, future in written:
        future.result()
