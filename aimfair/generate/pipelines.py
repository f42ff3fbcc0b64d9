"""Any text-to-image pipeline of diffusers: found, loaded, and set up for the device that it computes on."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from aimfair.environment import AimfairError
from aimfair.generate import presets
from aimfair.generate.presets import Preset

DTYPES = ("float32", "float16", "bfloat16")
BATCH, GPU_BATCH = 32, 64
"""Images at a time on a processor, and at most on a GPU, where a larger batch is no faster."""


@dataclass(frozen=True)
class Compute:
    """How a pipeline computes; :func:`choose` decides what is left at None."""

    dtype: str | None = None  # "float32", "float16" or "bfloat16"
    batch_size: int | None = None
    offload: bool = False  # parts wait in main memory for their turn on the GPU: slower, for models larger than it

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise AimfairError(f"dtype is one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.batch_size is not None and self.batch_size < 1:
            raise AimfairError(f"a batch has at least one image, got {self.batch_size}")


def choose(wanted: Compute, device: str, unet: bool, side: int = 512) -> Compute:
    """``wanted`` with every gap filled for the device; ``unet`` or transformer, which draws at ``side`` pixels.

    A processor: float32, batches of 32. A GPU: float16 for a U-Net and bfloat16 for a transformer, which overflows in
    float16; batches of 64 images at 512 px, or as many pixels in fewer images, which are halved while they do not fit.
    """
    gpu = torch.device(device).type != "cpu"
    dtype = "float32" if not gpu else "float16" if unet else "bfloat16"
    most = max(1, min(GPU_BATCH, GPU_BATCH * 512**2 // side**2)) if gpu else BATCH
    return replace(wanted, dtype=wanted.dtype or dtype, batch_size=wanted.batch_size or most)


def load_pipeline(
    model: str | Path | Preset, device: str = "cpu", compute: Compute | None = None, local_files_only: bool = False
) -> Any:
    """Any text-to-image pipeline of diffusers: the name of a preset, a folder, a name on the hub, or a :class:`Preset`.

    Only safetensors are read, so that nothing is unpickled. The pipeline gets four attributes more: ``source``, its name
    and revision (of a hub model the commit that was loaded, of a folder a fingerprint); ``scheduler_name``, with the
    options that were set; ``preset``; ``compute``, completed by :func:`choose`.

    Raises AimfairError if the model is not found, cannot be fetched, has no safetensors, does not fit the GPU or cannot
    compute as ``compute`` says.
    """
    try:
        import diffusers
        import transformers
    except ImportError as error:
        raise AimfairError("generation needs diffusers and transformers: pip install 'aimfair[generate]'") from error
    preset = locate(model)
    name, folder = preset.model, Path(preset.model)
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    wanted = compute or Compute()
    if torch.device(device).type != "cpu":  # a preset is written for GPUs
        dtype, batch_size = wanted.dtype or preset.dtype or None, wanted.batch_size or preset.batch_size
        wanted = replace(wanted, dtype=dtype, batch_size=batch_size)
    elif wanted.offload:
        raise AimfairError(
            "--offload has the parts of a model wait for their turn on a GPU, and there is none: leave it out"
        )
    where: dict[str, Any] = {"revision": preset.revision or None, "local_files_only": local_files_only}
    try:
        local = folder
        if not folder.is_dir():
            local = Path(diffusers.DiffusionPipeline.download(name, **where, use_safetensors=True))
        parts = diffusers.DiffusionPipeline.load_config(local)
        how = {"use_safetensors": True, "dtype": getattr(torch, choose(wanted, device, "unet" in parts).dtype or "")}
        networks = load_networks(local, parts, how)
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(local, **networks, **how)
        check_vocabulary(pipeline)
    except Exception as error:  # the libraries meet what is not whole with whatever exception comes first
        reason = str(error) if isinstance(error, (AimfairError, OSError, ValueError)) else repr(error)
        raise AimfairError(
            f"cannot load the text-to-image model {name}: {_one_line(reason)} - give the folder of a diffusers pipeline in "
            "safetensors, or a hub name while online"
        ) from error
    pipeline.scheduler_name = type(pipeline.scheduler).__name__
    if preset.scheduler:
        if not hasattr(diffusers, preset.scheduler):
            raise AimfairError(f"diffusers has no scheduler {preset.scheduler!r}: name a class such as DDIMScheduler")
        options = preset.scheduler_options
        scheduler = getattr(diffusers, preset.scheduler)
        pipeline.scheduler = scheduler.from_config({**pipeline.scheduler.config, **options})
        pipeline.scheduler_name = f"{preset.scheduler}({_listed(options)})" if options else preset.scheduler
    pipeline.set_progress_bar_config(disable=True)
    pipeline.source = (folder.name, fingerprint(folder)) if local == folder else (name, local.name)
    pipeline.preset = presets.completed(preset, type(pipeline).__name__)
    return set_up(place(pipeline, device, wanted.offload), wanted)


def load_networks(folder: Path, parts: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """The networks of a pipeline in ``folder``, by the names that ``parts`` (``model_index.json``) gives them.

    A folder may hold them under a variant, such as ``model.fp16.safetensors``. Raises AimfairError for a network of which
    a tensor is missing, or for one that no network has: both libraries would go on with random numbers.
    """
    import diffusers

    getattr(
        diffusers, str(parts.get("_class_name")), None
    )  # as it is imported, a pipeline may patch its networks (PRX)
    networks = {}
    for part, about in parts.items():
        library, kind = about if isinstance(about, (list, tuple)) and len(about) == 2 else ("", "")
        network: Any = getattr(import_module(library), kind, None) if library in ("diffusers", "transformers") else None
        if not hasattr(network, "from_pretrained") or not issubclass(network, torch.nn.Module):
            continue  # a tokenizer, a scheduler, or of the pipeline's own making
        files = [file.name.split(".") for file in (folder / part).glob("*.safetensors")]
        variant = None if any(len(file) == 2 for file in files) or not files else files[0][1].split("-")[0]
        networks[part], told = network.from_pretrained(
            str(folder / part), variant=variant, output_loading_info=True, **how
        )
        for problem in ("missing", "unexpected"):
            if keys := sorted(told[f"{problem}_keys"]):
                raise AimfairError(f"the {part} is not whole, {len(keys)} tensors are {problem} ({keys[0]}, ...)")
    return networks


def check_vocabulary(pipeline: Any) -> None:
    """Raise AimfairError for a tokenizer that has lost its vocabulary, or that another text encoder goes with."""
    for name, tokenizer in pipeline.components.items():
        encoder = pipeline.components.get(name.replace("tokenizer", "text_encoder"))
        if not name.startswith("tokenizer") or tokenizer is None or encoder is None:
            continue
        words, rows = len(tokenizer), encoder.get_input_embeddings().weight.shape[0]
        told = tokenizer("Portrait face photo of a smiling female")["input_ids"]
        clip = type(tokenizer).__name__.startswith("CLIP")
        if not set(told) - set(tokenizer.all_special_ids) or words > rows or (clip and words != rows):
            raise AimfairError(
                f"the {name} knows {words} words and the text encoder {rows}: a file of its folder is missing"
            )
        if clip and tokenizer.model_max_length > encoder.config.max_position_embeddings:
            raise AimfairError(f"the {name} does not say how much is read: tokenizer_config.json is missing")


def _cached(preset: Preset) -> str:
    """The commit at which a hub model lies on this disk, or ""."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(preset.model, "model_index.json", revision=preset.revision or None)
    return Path(found).parent.name if isinstance(found, str) else ""


def locate(model: str | Path | Preset) -> Preset:
    """The preset of a model. Raises AimfairError for a folder without a pipeline, and for what can be no model at all."""
    preset = model if isinstance(model, Preset) else presets.find(str(model))
    name, folder = preset.model, Path(preset.model)
    if folder.is_file():
        raise AimfairError(
            f"{name} is a single file: have diffusers convert it, StableDiffusionPipeline.from_single_file(FILE)"
            ".save_pretrained(FOLDER), and name the folder"
        )
    if folder.is_dir() and not (folder / "model_index.json").exists():
        lora = any((folder / file).exists() for file in ("pytorch_lora_weights.safetensors", "adapter_config.json"))
        what = (
            "a LoRA: load it into its model with load_lora_weights, fuse_lora and save_pretrained"
            if lora
            else ("no diffusers pipeline (model_index.json is missing)")
        )
        raise AimfairError(f"{name} holds {what}")
    if not folder.is_dir() and (name.count("/") != 1 or folder.is_absolute() or name.startswith(".")):
        raise AimfairError(
            f"no folder {name}, and a model on the Hugging Face hub is called owner/name; "
            "aimfair generate --list-models shows those with a short name"
        )
    return preset


def place(pipeline: Any, device: str, offload: bool = False) -> Any:
    """The pipeline on its device; with ``offload`` each part only while it computes.

    Raises AimfairError where it does not fit, or has no order in which its parts compute.
    """
    name = pipeline.source[0]
    try:
        if offload:
            pipeline.enable_model_cpu_offload(device=device)
        return pipeline if offload else pipeline.to(device)
    except ValueError as error:
        raise AimfairError(f"{name} cannot be used with --offload: {_one_line(error)}") from error
    except torch.OutOfMemoryError as error:
        raise AimfairError(
            f"{name} does not fit the memory of {device}: aimfair generate --list-models shows what each model needs, and "
            "--offload keeps the parts off the GPU that are not at work"
        ) from error


def set_up(pipeline: Any, wanted: Compute) -> Any:
    """Apply ``wanted``, completed by :func:`choose` for the pipeline's device, to a loaded pipeline; returns it.

    Raises AimfairError for a pipeline of another make.
    """
    unet: Any = getattr(pipeline, "unet", None)
    network = unet if unet is not None else getattr(pipeline, "transformer", None)
    if network is None or getattr(pipeline, "vae", None) is None:
        raise AimfairError(
            f"{type(pipeline).__name__} cannot be used here: a generator has one denoising network and an autoencoder, "
            "and this one draws in another way"
        )
    device = str(pipeline._execution_device)  # where it computes: with offloading, pipeline.device is the processor
    side = side_of(pipeline) or 1024
    if torch.device(device).type != "cpu":
        if side >= 768 and hasattr(pipeline.vae, "enable_slicing"):  # decoding a whole batch would need the most memory
            pipeline.vae.enable_slicing()
        if unet is not None:
            network.to(memory_format=torch.channels_last)
            pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.compute = choose(wanted, device, unet is not None, side)
    return pipeline


def side_of(pipeline: Any) -> int | None:
    """Pixels of the side of the images that a pipeline draws unasked: of its preset, else its own."""
    if pipeline.preset.size:
        return pipeline.preset.size
    if hasattr(pipeline, "get_default_resolution"):  # PRX, which counts in pixels
        return int(pipeline.get_default_resolution())
    units = getattr(pipeline, "default_sample_size", None)
    if units is None and getattr(pipeline, "unet", None) is not None:
        units = pipeline.unet.config.sample_size
    scale = getattr(pipeline, "vae_scale_factor", None)
    return int(units) * int(scale) if isinstance(units, int) and scale else None


def settings_of(pipeline: Any, steps: int, guidance: float, size: int) -> dict[str, Any]:
    """What ``settings.json`` says of the images that a loaded pipeline draws so, files of ``size`` pixels (see
    :data:`aimfair.generate.manifest.SETTINGS`).

    Warns of a guidance that has no effect, which is recorded as None, and records no negative prompt that has none.
    """
    guided = is_guided(pipeline, guidance)
    if guidance > 1 and not guided:
        warnings.warn(
            f"{type(pipeline).__name__} of this model reads no guidance: {guidance:g} has no effect", stacklevel=3
        )
    return {
        "model": pipeline.source[0],
        "revision": pipeline.source[1],
        "scheduler": pipeline.scheduler_name,
        "steps": steps,
        "guidance": float(guidance) if guided or guidance <= 1 else None,
        "size": size,
        "negative_prompt": pipeline.preset.negative_prompt if guided else "",
        "drawn": str(side_of(pipeline) or ""),
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "arguments": _listed(pipeline.preset.arguments),
    }


def is_guided(pipeline: Any, guidance: float) -> bool:
    """Whether ``guidance`` changes what a pipeline draws: not below its threshold, nor for most distilled models."""
    network = pipeline.components.get("unet") or pipeline.components.get("transformer")
    config = getattr(network, "config", {})
    if config.get("guidance_embeds") or config.get("time_cond_proj_dim"):  # the network itself reads the number
        return True
    if pipeline.preset.guidance_argument == "guidance_scale" and hasattr(type(pipeline), "do_classifier_free_guidance"):
        pipeline._guidance_scale = guidance  # as its own call begins
        return bool(pipeline.do_classifier_free_guidance)
    return guidance > 1 and not ("guidance_embeds" in config and pipeline.preset.guidance_argument == "guidance_scale")


def known_settings(model: str | Path) -> dict[str, Any]:
    """What :func:`settings_of` will say of a model, as far as it is known before the model is loaded, or even fetched."""
    preset = presets.find(str(model))
    folder = Path(preset.model)
    name = folder.name if folder.is_dir() or folder.is_absolute() else preset.model
    revision = fingerprint(folder) if folder.is_dir() else preset.revision
    return {"model": name} | ({"revision": revision} if revision else {})


def at_hand(model: str) -> bool:
    """Whether a preset, folder or hub model can be loaded without fetching anything: it lies on this disk."""
    preset = presets.find(model)
    return Path(preset.model).is_dir() or (preset.model.count("/") == 1 and bool(_cached(preset)))


def unknown_arguments(pipeline_class: type, arguments: Mapping[str, Any]) -> list[str]:
    """Those of ``arguments`` that a pipeline cannot be called with."""
    known = inspect.signature(pipeline_class.__call__).parameters
    return [name for name in arguments if name not in known]


def fingerprint(folder: Path) -> str:
    """Twelve hex digits that change with what a local pipeline draws: its settings and vocabularies, and size and last MiB
    of its weight files."""
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted([folder / "model_index.json", *folder.glob("*/**/*")]):
        if file.is_file() and not file.name.startswith("."):
            with file.open("rb") as stream:
                stream.seek(max(0, file.stat().st_size - 2**20))
                digest.update(f"{file.relative_to(folder)} {file.stat().st_size}".encode() + stream.read())
    return digest.hexdigest()


def _listed(options: Mapping[str, Any]) -> str:
    """``{"steps_offset": 1, "clip_sample": False}`` -> "steps_offset=1, clip_sample=False"."""
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
