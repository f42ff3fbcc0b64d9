"""Text to image: prompts -> labelled images on disk, with any text-to-image pipeline of diffusers.

Every image is a job with a seed of its own, so that a pool can be drawn in parts, killed and resumed, or
enlarged later, and is always the same pool. The manifest says how each image was made.
"""

from __future__ import annotations

import csv
import hashlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor

from aimfair.errors import AimfairError
from aimfair.faces import GROUPS
from aimfair.progress import progress
from aimfair.prompts import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

SETTINGS = ("model", "revision", "scheduler", "steps", "guidance", "size", "negative_prompt")
COLUMNS = ("path", "target", "protected", "prompt_id", "replicate", "seed", "prompt", *SETTINGS)
"""Columns of ``manifest.csv``; ``path`` is relative to it. A job with more fields than :class:`Job` has a column for each."""


@dataclass(frozen=True)
class Job:
    """One image to draw.

    pair       "<Target>_<Protected>", the folder of the task
    number     place of the image in its group; never changes when replicates are added
    replicate  how many images of the same prompt come before this one
    seed       of the image's own noise, 63 bits
    """

    pair: str
    number: int
    prompt_id: str
    prompt: str
    target: int
    protected: int
    replicate: int
    seed: int

    @property
    def path(self) -> str:
        """Where the image lies below the pool's folder, e.g. ``Smiling_Male/1_0/00042.png``."""
        return f"{self.pair}/{self.target}_{self.protected}/{self.number:05d}.png"


Painter = Callable[[Sequence[Job]], "list[Image]"]
"""Draws one image for each job of a batch."""


def jobs(prompts: Sequence[Prompt], per_group: int, pair: str) -> list[Job]:
    """``per_group`` jobs for each of the four groups, spread evenly over the group's prompts.

    Raises AimfairError if a group has no prompt.
    """
    todo = []
    for target, protected in GROUPS:
        bank = [p for p in prompts if (p.target, p.protected) == (target, protected)]
        if not bank:
            raise AimfairError(
                f"no prompt for group ({target}, {protected}) of {pair}: a bank needs some for all four groups"
            )
        for number in range(per_group):
            replicate, place = divmod(number, len(bank))
            prompt = bank[place]
            key = f"{pair}|{target}_{protected}|{prompt.id}|{replicate}".encode()
            seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
            todo.append(Job(pair, number, prompt.id, prompt.text, target, protected, replicate, seed))
    return todo


def load_pipeline(
    name_or_folder: str | Path,
    device: str = "cpu",
    revision: str | None = None,
    local_files_only: bool = False,
    scheduler: str | None = None,
    scheduler_options: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Any text-to-image pipeline of diffusers, from a folder or by its name on the Hugging Face hub.

    Only safetensors are read, so that nothing is unpickled. Computes in float32 on a CPU and float16 elsewhere
    unless ``dtype`` says otherwise. ``scheduler`` names a diffusers scheduler to use in place of the model's own,
    with ``scheduler_options`` on top of its configuration.

    Raises AimfairError if the model is not there, cannot be fetched or has no safetensors.
    """
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise AimfairError("generation needs diffusers and transformers: pip install 'aimfair[generate]'") from error
    name = str(name_or_folder)
    folder = Path(name_or_folder)
    if folder.is_dir() and not (folder / "model_index.json").exists():
        raise AimfairError(f"{name} holds no diffusers pipeline (model_index.json is missing)")
    if not folder.is_dir() and (name.count("/") != 1 or folder.is_absolute() or name.startswith(".")):
        raise AimfairError(f"no folder {name}, and a model on the Hugging Face hub is called owner/name")
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.float16)
    try:
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
            name, revision=revision, local_files_only=local_files_only, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AimfairError(
            f"cannot load the text-to-image model {name}: {reason} - give the folder of a diffusers pipeline in safetensors, "
            "or a hub name while online"
        ) from error
    if scheduler is not None:
        if not hasattr(diffusers, scheduler):
            raise AimfairError(f"diffusers has no scheduler {scheduler!r}: name a class such as DDIMScheduler")
        config = dict(pipeline.scheduler.config) | dict(scheduler_options or {})
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.source = (folder.name, fingerprint(folder)) if folder.is_dir() else (name, revision or "")
    return pipeline.to(device)


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change when a local pipeline is trained again: sizes and last MiB of its weight files."""
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 2**20))
            digest.update(f"{file.relative_to(folder)} {file.stat().st_size}".encode() + stream.read())
    return digest.hexdigest()


def read_manifest(folder: str | Path) -> pd.DataFrame:
    """One row per image of the pool in ``folder``, in the order they were drawn; empty if there is none yet."""
    file = Path(folder) / "manifest.csv"
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # a killed process may have left half a row
    texts = dict.fromkeys("path prompt_id prompt face model revision scheduler negative_prompt".split(), str)
    return pd.read_csv(io.StringIO(whole), dtype=texts, keep_default_na=False)


def missing(todo: Iterable[Job], folder: str | Path) -> list[Job]:
    """The jobs that have no image with a manifest row in ``folder`` yet."""
    folder = Path(folder)
    there = {path for path in read_manifest(folder)["path"] if (folder / path).exists()}
    return [job for job in todo if job.path not in there]


def generate(
    pipeline: Any,
    todo: Sequence[Job],
    folder: str | Path,
    *,
    steps: int,
    guidance: float,
    size: int,
    batch_size: int = 32,
    negative_prompt: str = "",
    painter: Callable[[Any, Mapping[str, Any]], Painter] | None = None,
) -> Path:
    """Draw what is missing of ``todo`` as PNG files of ``size`` x ``size`` pixels below ``folder``; returns the manifest.

    The model draws at its own size and the image is resized (Lanczos). An image appears whole or not at all, and its
    row follows; whatever stops the run, starting it again draws the rest. Each image has its own CPU generator, so that
    neither order nor batch matters; only the order of floating-point sums inside the network depends on
    ``batch_size``, which may change a pixel by one grey level. The last batch is filled up to the same size.

    ``painter`` makes the function that draws a batch out of the pipeline and the settings of the manifest; default is
    :func:`text_to_image`.

    Images that come out black (the safety checker of Stable Diffusion 1.x, or an overflow) are left out with a warning.

    Raises AimfairError if the folder holds images of other settings, nothing can be written, or all are black.
    """
    folder = Path(folder)
    model, revision = getattr(pipeline, "source", (type(pipeline).__name__, ""))
    settings = {
        "model": model,
        "revision": revision,
        "scheduler": type(pipeline.scheduler).__name__,
        "steps": steps,
        "guidance": float(guidance),
        "size": size,
        "negative_prompt": negative_prompt,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "manifest.lock"):
            _same_settings(folder, todo, settings)
            rest = missing(todo, folder)
            _tidy(folder, columns(todo))
            black: list[str] = []
            done = len(todo) - len(rest)
            paint = (painter or text_to_image)(pipeline, settings)
            images = _draw(paint, rest, folder, settings, batch_size, black)
            for _ in progress(images, "generating", len(todo), "image", done=done):
                pass
    except OSError as error:
        raise AimfairError(
            f"cannot write to {folder} ({error.strerror or error}): images already there are kept; make room and start again"
        ) from error
    if black:
        said = f"{len(black)} of {len(rest)} images came out black and were left out ({black[0]}, ...)"
        if len(black) == len(rest):
            raise AimfairError(f"{said}: is a safety checker or a half-precision overflow at work?")
        warnings.warn(said, stacklevel=2)
    return folder / "manifest.csv"


def columns(todo: Sequence[Job]) -> tuple[str, ...]:
    """:data:`COLUMNS`, then the fields that these jobs have beyond those of :class:`Job`."""
    known = {*COLUMNS, *(f.name for f in fields(Job))}
    return (*COLUMNS, *(name for job in todo[:1] for name in vars(job) if name not in known))


def text_to_image(pipeline: Any, settings: Mapping[str, Any]) -> Painter:
    """Draws each job's image from its prompt and seed alone."""
    arguments = prompt_arguments(pipeline, settings)

    def paint(batch: Sequence[Job]) -> list[Image]:
        return pipeline(
            **arguments(batch),
            num_inference_steps=settings["steps"],
            guidance_scale=settings["guidance"],
            generator=[torch.Generator().manual_seed(job.seed) for job in batch],
            output_type="pil",
        ).images

    return paint


def _draw(
    paint: Painter, rest: Sequence[Job], folder: Path, settings: Mapping[str, Any], batch_size: int, black: list[str]
) -> Iterator[None]:
    """Draw in batches while the previous batch is written by a few threads; yields once per image."""
    batch_size = min(batch_size, len(rest))
    with ThreadPoolExecutor(4) as pool:
        written: list[tuple[Job, Future]] = []
        try:
            for start in range(0, len(rest), batch_size or 1):
                batch = list(rest[start : start + batch_size])
                padded = batch + batch[-1:] * (batch_size - len(batch))
                images = paint(padded)
                _record(folder, written, settings)
                written = []
                for job, image in zip(batch, images[: len(batch)], strict=True):
                    if image.getbbox() is None:
                        black.append(job.path)
                    else:
                        written.append((job, pool.submit(_write, image, folder / job.path, settings["size"])))
                    yield
        finally:
            _record(folder, written, settings)


def prompt_arguments(pipeline: Any, settings: Mapping[str, Any]) -> Any:
    """(jobs) -> the pipeline's arguments for their prompts; Stable Diffusion encodes each distinct prompt only once."""
    from diffusers import StableDiffusionPipeline

    negative = settings["negative_prompt"]
    guided = settings["guidance"] > 1
    if not isinstance(pipeline, StableDiffusionPipeline):
        return lambda batch: (
            {"prompt": [job.prompt for job in batch]}
            | ({"negative_prompt": [negative] * len(batch)} if negative else {})
        )
    known: dict[str, Tensor] = {}

    @torch.inference_mode()
    def encode(text: str) -> Tensor:
        if text not in known:
            known[text] = pipeline.encode_prompt(text, pipeline.device, 1, do_classifier_free_guidance=False)[0][0]
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


def _record(folder: Path, written: Sequence[tuple[Job, Future]], settings: Mapping[str, Any]) -> None:
    """Append a row for each image that was written; then raise what went wrong with the others, if anything did."""
    rows = [{**vars(job), **settings, "path": job.path} for job, future in written if future.exception() is None]
    if rows:
        with (folder / "manifest.csv").open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(
                stream, columns([job for job, _ in written]), extrasaction="ignore", lineterminator="\n"
            ).writerows(rows)
    for _, future in written:
        future.result()


def _same_settings(folder: Path, todo: Sequence[Job], settings: Mapping[str, Any]) -> None:
    """Raise AimfairError if an image of ``todo`` is there but was made in another way."""
    there = {row["path"]: row for row in read_manifest(folder).to_dict("records")}
    for job in todo:
        if (row := there.get(job.path)) is None:
            continue
        own = {name: value for name, value in vars(job).items() if name in row}
        for name, value in {**settings, **own}.items():
            if row[name] != value:
                raise AimfairError(
                    f"{folder / job.path} was made with {name} {row[name]!r}, not {value!r}: choose another folder, or remove it"
                )


def _tidy(folder: Path, columns: Sequence[str]) -> None:
    """Write the manifest anew with a header, without half a row and without rows whose image is gone."""
    rows = read_manifest(folder)
    rows = rows[rows["path"].map(lambda path: (folder / path).exists()).astype(bool)]
    partial = folder / "manifest.partial"
    rows.reindex(columns=list(columns)).to_csv(partial, index=False, lineterminator="\n")
    partial.replace(folder / "manifest.csv")
