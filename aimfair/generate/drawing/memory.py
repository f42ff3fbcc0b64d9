"""What fits the memory: how large a batch may be, and going on after one that was too large."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from aimfair.environment import AimfairError
from aimfair.generate.drawing.jobs import Job

if TYPE_CHECKING:
    from PIL.Image import Image

Painter = Callable[[Sequence[Job]], "list[Image]"]
"""Draws one image for each job of a batch."""

FULL = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""Other words of libraries for a full GPU than those that accelerate knows."""


def free_memory(pipeline: Any, device: torch.device, offload: bool = False) -> float:
    """Gigabytes of a GPU that batches may take, of which other processes on it have their part; 0 for a processor.

    With ``offload`` the weights are elsewhere when this is asked, and the largest part comes back in its turn.
    """
    if device.type != "cuda":
        return 0.0
    free = torch.cuda.mem_get_info(device)[0]
    if offload:
        free -= max(_bytes(part) for part in pipeline.components.values() if isinstance(part, torch.nn.Module))
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(free, 0) / 1e9 / max(1, -(-beside // torch.cuda.device_count()))


def _bytes(part: torch.nn.Module) -> int:
    return sum(weights.numel() * weights.element_size() for weights in part.parameters())


def at_once(pipeline: Any, batch_size: int | None = None) -> int:
    """How many images a batch has: as asked, else as :func:`aimfair.generate.drawing.pipelines.choose` chose, but no more than the preset allows."""
    preset = getattr(pipeline, "preset", None)
    most = preset.largest_batch if preset is not None else None
    if most and (batch_size or 0) > most:
        warnings.warn(f"this model draws {most} at a time, not {batch_size}: see its preset", stacklevel=3)
    wanted = batch_size or getattr(getattr(pipeline, "compute", None), "batch_size", None) or 32
    return min(wanted, most or wanted)


def painted(pipeline: Any, paint: Painter, batch: Sequence[Job]) -> list[Image] | None:
    """The images of a batch, or None where they do not fit the memory; the pipeline can be called again."""
    autoencoder = getattr(getattr(pipeline, "vae", None), "dtype", None)
    try:
        return paint(batch)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    recover(pipeline, autoencoder)  # outside the handler, which holds on to the tensors of the failed call
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the memory of the GPU or of the machine is full."""
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return should_reduce_batch_size(error) or any(text in str(error) for text in FULL)  # type: ignore[arg-type]


def recover(pipeline: Any, autoencoder: torch.dtype | None) -> None:
    """Make ``pipeline`` fit to be called again after a call that ran out of memory.

    ``autoencoder`` is the number format that its VAE had before. Stable Diffusion XL takes float32 for the decoding
    and, if that fails, stays there; and with offloading whatever part was at work is still on the GPU.
    """
    if autoencoder is not None:
        pipeline.vae.to(dtype=autoencoder)
    if hasattr(pipeline, "maybe_free_model_hooks"):
        pipeline.maybe_free_model_hooks()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def halved(batch_size: int) -> int:
    """The next smaller batch after one that does not fit. Raises AimfairError where it is one image already."""
    if batch_size == 1:
        raise AimfairError(
            "the memory is too small for one image at a time: images already there are kept; choose a smaller model, "
            "--dtype float16 or --tiling, or free memory, and start again"
        )
    smaller = (batch_size + 1) // 2
    warnings.warn(f"{batch_size} images at a time do not fit the memory: going on with {smaller}", stacklevel=2)
    return smaller
