"""Any text-to-image pipeline of diffusers: found, loaded, and set up for the device that it computes on."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aimfair.environment import AimfairError
from aimfair.generate import presets
from aimfair.generate.drawing.memory import free_memory
from aimfair.generate.presets import Preset

DTYPES = ("float32", "float16", "bfloat16")
LARGEST_BATCH = 64
"""Of a GPU: beyond it a batch is no faster."""


@dataclass(frozen=True)
class Compute:
    """How a pipeline computes; :func:`choose` decides what is left at None.

    dtype          "float32", "float16" or "bfloat16"
    attention      "" is PyTorch's scaled_dot_product_attention; "sliced" needs less memory without it; any other name is
                   a backend of diffusers, such as "flash" or "_native_cudnn", for transformers
    slicing        the autoencoder decodes one image after the other
    tiling         and one tile after the other, which shows in the pixels where they meet: for very large images only
    channels_last  memory format of a U-Net
    compile        torch.compile: minutes before the first batch, then faster; for thousands of images
    batch_size     images at a time
    offload        each part of the model waits in main memory for its turn on the GPU: slower, for models larger than it
    """

    dtype: str | None = None
    attention: str = ""
    slicing: bool | None = None
    tiling: bool | None = None
    channels_last: bool | None = None
    compile: bool | None = None
    batch_size: int | None = None
    offload: bool = False

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise AimfairError(f"dtype is one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.batch_size is not None and self.batch_size < 1:
            raise AimfairError(f"a batch has at least one image, got {self.batch_size}")


def choose(wanted: Compute, device: str, unet: bool, side: int = 512, free: float = 0.0) -> Compute:
    """``wanted`` with every gap filled for the device.

    unet  whether the network is a U-Net (Stable Diffusion up to XL) or a transformer
    side  pixels at which the model draws
    free  gigabytes that the GPU has left beside the weights

    A processor: float32, batches of 32, nothing else. A GPU: float16 for a U-Net and bfloat16 for a transformer, which
    overflows in float16; channels last for a U-Net; the autoencoder one image at a time from 768 px on, where a whole
    batch would need more memory than the denoising; batches that take at most four fifths of the free memory at 2 GB per
    megapixel (4 in float32), a power of two up to 64. Compiling and tiling only where asked for.
    """
    gpu = torch.device(device).type != "cpu"
    dtype = wanted.dtype or ("float32" if not gpu else "float16" if unet else "bfloat16")
    each = (side / 1000) ** 2 * (4 if dtype == "float32" else 2)
    fits = 1
    while fits < LARGEST_BATCH and 2 * fits * each <= 0.8 * free:
        fits *= 2
    defaults: dict[str, Any] = {
        "slicing": gpu and side >= 768,
        "tiling": False,
        "channels_last": gpu and unet,
        "compile": False,
        "batch_size": fits if gpu else 32,
    }
    return replace(wanted, dtype=dtype, **{k: v for k, v in defaults.items() if getattr(wanted, k) is None})


def load_pipeline(
    name_or_folder: str | Path,
    device: str = "cpu",
    revision: str | None = None,
    local_files_only: bool = False,
    scheduler: str | None = None,
    scheduler_options: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    compute: Compute | None = None,
) -> Any:
    """Any text-to-image pipeline of diffusers: a preset, a folder, or a name on the Hugging Face hub.

    Only safetensors are read, so that nothing is unpickled. ``scheduler`` names a diffusers scheduler to use in place of
    the model's own, with ``scheduler_options`` on top of its configuration; both, and ``revision``, are those of a preset
    unless they are given. ``compute`` (or ``dtype`` alone) overrides what :func:`choose` chooses for the device.

    The pipeline gets four attributes more: ``source``, its name and revision (of a hub model the commit that was
    loaded, of a folder a fingerprint); ``scheduler_name``, with the options that were set; ``preset``; ``compute``.

    Raises AimfairError if the model is not there, cannot be fetched, has no safetensors, or does not fit the GPU; and
    where parts are to be kept off a GPU that there is not.
    """
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise AimfairError("generation needs diffusers and transformers: pip install 'aimfair[generate]'") from error
    preset = located(name_or_folder)
    name, folder = preset.model, Path(preset.model)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    given = compute or Compute(dtype=str(dtype).removeprefix("torch.") if dtype else None)
    if given.offload and torch.device(device).type == "cpu":
        raise AimfairError(
            "--offload has the parts of a model wait for their turn on a GPU, and the device is cpu: leave it out"
        )
    if torch.device(device).type != "cpu":  # a preset is written for GPUs
        given = replace(
            given, dtype=given.dtype or preset.dtype or None, batch_size=given.batch_size or preset.batch_size
        )
    where: dict[str, Any] = {"revision": revision or preset.revision or None, "local_files_only": local_files_only}
    try:
        parts = diffusers.DiffusionPipeline.load_config(name, **where)
        chosen = choose(given, device, "unet" in parts)
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
            name, **where, use_safetensors=True, dtype=getattr(torch, chosen.dtype or "")
        )
    except (OSError, ValueError, ImportError, KeyError, AttributeError) as error:
        reason = " ".join((repr(error) if isinstance(error, KeyError) else str(error)).split())[:200]
        raise AimfairError(
            f"cannot load the text-to-image model {name}: {reason} - give the folder of a diffusers pipeline in safetensors, "
            "or a hub name while online"
        ) from error
    scheduler, options = scheduler or preset.scheduler, scheduler_options or preset.scheduler_options
    if scheduler:
        pipeline.scheduler = _scheduler(pipeline.scheduler.config, scheduler, options)
    pipeline.scheduler_name = type(pipeline.scheduler).__name__ + _in_brackets(options if scheduler else {})
    pipeline.set_progress_bar_config(disable=True)
    pipeline.source = (folder.name, fingerprint(folder)) if folder.is_dir() else (name, _commit(name, **where))
    pipeline.preset = presets.completed(preset, type(pipeline).__name__)
    return set_up(place(pipeline, device, given.offload), given)


def located(name_or_folder: str | Path) -> Preset:
    """The preset of a model. Raises AimfairError for a folder without a pipeline, and for what can be no model at all."""
    preset = presets.find(str(name_or_folder))
    name, folder = preset.model, Path(preset.model)
    if folder.is_dir() and not (folder / "model_index.json").exists():
        raise AimfairError(f"{name} holds no diffusers pipeline (model_index.json is missing)")
    if not folder.is_dir() and (name.count("/") != 1 or folder.is_absolute() or name.startswith(".")):
        raise AimfairError(
            f"no folder {name}, and a model on the Hugging Face hub is called owner/name; "
            "aimfair generate --list-models shows those with a short name"
        )
    return preset


def expected(name_or_folder: str | Path) -> dict[str, Any]:
    """What a manifest will say of a model (see :data:`aimfair.generate.drawing.manifest.SETTINGS`), as far as it is known before the
    model is loaded, or even there."""
    preset = presets.find(str(name_or_folder))
    folder = Path(preset.model)
    local = folder.is_dir() or folder.is_absolute()
    kind = preset.pipeline or _class_of(folder)
    preset = presets.completed(preset, kind)
    known = {
        "model": folder.name if local else preset.model,
        "revision": fingerprint(folder) if folder.is_dir() else preset.revision,
        "scheduler": preset.scheduler + _in_brackets(preset.scheduler_options),
        "negative_prompt": preset.negative_prompt,
        "drawn": str(preset.size or ""),
        "arguments": listed(preset.arguments),
    }
    unknown = [name for name in ("revision", "scheduler", "drawn") if not known[name]]
    unknown += [] if kind else ["negative_prompt"]
    return {name: value for name, value in known.items() if name not in unknown}


def place(pipeline: Any, device: str, offload: bool = False) -> Any:
    """The pipeline on its device; with ``offload`` each part only while it computes.

    Raises AimfairError where it does not fit, or has no order in which its parts compute.
    """
    name = pipeline.source[0]
    try:
        if not offload:
            return pipeline.to(device)
        pipeline.enable_model_cpu_offload(device=device)
        return pipeline
    except ValueError as error:
        raise AimfairError(f"{name} cannot be used with --offload: {' '.join(str(error).split())[:200]}") from error
    except torch.OutOfMemoryError as error:
        raise AimfairError(
            f"{name} does not fit the memory of {device}: aimfair generate --list-models shows what each model needs, and "
            "--offload keeps the parts off the GPU that are not at work"
        ) from error


def set_up(pipeline: Any, wanted: Compute) -> Any:
    """Apply ``wanted``, completed by :func:`choose` for the pipeline's device, to a loaded pipeline; returns it.

    Raises AimfairError for an attention backend that the network cannot use, and for a pipeline of another make.
    """
    device = pipeline._execution_device  # where it computes: with offloading, pipeline.device is the processor
    network: Any = getattr(pipeline, "unet", None)
    unet = network is not None
    network = network if unet else getattr(pipeline, "transformer", None)
    if network is None or getattr(pipeline, "vae", None) is None:
        raise AimfairError(
            f"{type(pipeline).__name__} cannot be used here: a generator has one denoising network and an autoencoder, "
            "and this one draws in another way"
        )
    free = free_memory(pipeline, device, wanted.offload)
    compute = choose(wanted, str(device), unet, side_of(pipeline) or 1024, free)
    for switch, method in ((compute.slicing, "enable_slicing"), (compute.tiling, "enable_tiling")):
        if switch and hasattr(pipeline.vae, method):
            getattr(pipeline.vae, method)()
    if compute.channels_last:
        network.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if compute.attention == "sliced":
        pipeline.enable_attention_slicing()
    elif compute.attention:
        if not any(hasattr(getattr(m, "processor", None), "_attention_backend") for m in network.modules()):
            raise AimfairError(
                f"attention {compute.attention!r} cannot be used here: the {type(network).__name__} of this model takes no "
                "backends; leave it out for PyTorch's own, or choose sliced"
            )
        try:
            network.set_attention_backend(compute.attention)
        except (ValueError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise AimfairError(f"attention {compute.attention!r} cannot be used here: {reason}") from error
    if compute.compile:  # in place, so that the parts stay what they are; one shape, because batches are filled up
        network.compile(dynamic=False)
        pipeline.vae.decoder.compile(dynamic=False)
    pipeline.compute = compute
    return pipeline


def side_of(pipeline: Any) -> int | None:
    """Pixels of the side of the images that a pipeline draws if it is not told: of its preset, else its own."""
    preset = getattr(pipeline, "preset", None)
    if preset is not None and preset.size:
        return preset.size
    if hasattr(pipeline, "get_default_resolution"):  # PRX, which counts in pixels
        return int(pipeline.get_default_resolution())
    units = getattr(pipeline, "default_sample_size", None)
    if units is None and getattr(pipeline, "unet", None) is not None:
        units = pipeline.unet.config.sample_size
    scale = getattr(pipeline, "vae_scale_factor", None)
    return int(units) * int(scale) if isinstance(units, int) and scale else None


def at_hand(name: str) -> bool:
    """Whether a preset, folder or hub model can be loaded without fetching anything: it lies on this disk."""
    from huggingface_hub import try_to_load_from_cache

    preset = presets.find(name)
    if Path(preset.model).is_dir():
        return True
    if preset.model.count("/") != 1:
        return False
    return isinstance(try_to_load_from_cache(preset.model, "model_index.json", revision=preset.revision or None), str)


def refused(pipeline_class: type, arguments: Mapping[str, Any]) -> list[str]:
    """Those of ``arguments`` that a pipeline cannot be called with."""
    known = inspect.signature(pipeline_class.__call__).parameters
    return [name for name in arguments if name not in known]


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change when a local pipeline is trained again: sizes and last MiB of its weight files."""
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 2**20))
            digest.update(f"{file.relative_to(folder)} {file.stat().st_size}".encode() + stream.read())
    return digest.hexdigest()


def _scheduler(config: Mapping[str, Any], name: str, options: Mapping[str, Any]) -> Any:
    import diffusers

    if not hasattr(diffusers, name):
        raise AimfairError(f"diffusers has no scheduler {name!r}: name a class such as DDIMScheduler")
    return getattr(diffusers, name).from_config(dict(config) | dict(options))


def listed(options: Mapping[str, Any]) -> str:
    """``{"steps_offset": 1, "clip_sample": False}`` -> "steps_offset=1, clip_sample=False"."""
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _in_brackets(options: Mapping[str, Any]) -> str:
    return f"({listed(options)})" if options else ""


def _class_of(folder: Path) -> str:
    """The class of diffusers that a local pipeline names; "" for a folder that is not there, or holds none."""
    try:
        return json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError):
        return ""


def _commit(name: str, revision: str | None, local_files_only: bool) -> str:
    """The commit of a hub model that was just loaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "model_index.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else revision or ""
