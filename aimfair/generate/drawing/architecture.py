"""The network of Stable Diffusion 2.1-base, full size, with random weights: what is needed to measure its speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from aimfair.generate import presets


@dataclass(frozen=True)
class Architecture:
    """Arguments of diffusers' U-Net and autoencoder, the shape of an embedded prompt, and the side of the image."""

    name: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    prompt: tuple[int, int]
    side: int


SD21_BASE = Architecture(
    name="Stable Diffusion 2.1-base",
    unet={
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "attention_head_dim": (5, 10, 20, 20),  # diffusers' name for the number of heads
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    vae={
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    prompt=(77, 1024),
    side=512,
)
"""865,910,724 parameters in the U-Net, 83,653,863 in the autoencoder."""

TINY = Architecture(
    name="the same in tiny",
    unet=SD21_BASE.unet
    | {
        "sample_size": 8,
        "layers_per_block": 1,
        "block_out_channels": (32, 32, 64, 64),
        "attention_head_dim": (1, 1, 2, 2),
        "cross_attention_dim": 32,
    },
    vae=SD21_BASE.vae | {"layers_per_block": 1, "block_out_channels": (32, 32, 32, 32), "sample_size": 64},
    prompt=(77, 32),
    side=64,
)
"""For a processor."""


def unet(architecture: Architecture) -> Any:
    """The U-Net alone, on torch's default device."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**architecture.unet).eval()


def build(architecture: Architecture, device: str, dtype: torch.dtype) -> Any:
    """A StableDiffusionPipeline with random weights; it is called with embedded prompts, for it has no text encoder.

    The text encoder is left out because a run embeds each distinct prompt once: it takes no part of the time.
    """
    from diffusers import AutoencoderKL, StableDiffusionPipeline

    torch.manual_seed(0)
    with torch.device(device):
        network, vae = unet(architecture).to(dtype), AutoencoderKL(**architecture.vae).eval().to(dtype)
    parts = {"vae": vae, "unet": network, "scheduler": scheduler("sd21-base")}
    none = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipeline = StableDiffusionPipeline(**parts, **none, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scheduler(preset: str) -> Any:
    """The scheduler of a preset, on the noise schedule of Stable Diffusion."""
    import diffusers

    chosen, base = presets.find(preset), presets.find("sd21-base").scheduler_options
    noise = {name: base[name] for name in ("beta_start", "beta_end", "beta_schedule", "prediction_type")}
    return getattr(diffusers, chosen.scheduler)(**(noise | dict(chosen.scheduler_options)))


def teraflops(architecture: Architecture) -> float:
    """Of one call of the U-Net for one latent: counted by torch on the meta device, without memory or time."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = unet(architecture)
        side = architecture.unet["sample_size"]
        inputs = torch.empty(1, 4, side, side), torch.empty(1), torch.empty(1, *architecture.prompt)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops() / 1e12
