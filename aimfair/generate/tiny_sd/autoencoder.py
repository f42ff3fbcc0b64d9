"""The autoencoder of a tiny Stable Diffusion: 64 x 64 pixels to 8 x 8 latents of 16 channels and back.

It decides what the diffusion model can draw at all: an attribute that its reconstructions lose is lost in every
generated image. So its loss looks where the labels are: pixels are weighted by a focus map, and the features
of a small label classifier must come out as they went in.
"""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aimfair.generate.classifier import autocast, load_classifier, train_classifier
from aimfair.generate.tiny_sd.stage import train_stage
from aimfair.models import ResNet18

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CHANNELS = (16, 32, 64, 128)
LATENTS = 16
KL_WEIGHT = 2e-3
FEATURE_WEIGHT = 0.2


def build(size: int, seed: int = 0, channels: tuple[int, ...] = CHANNELS) -> AutoencoderKL:
    """A fresh autoencoder whose last level is 1/8 of ``size``; no attention, for 64 positions do not need it."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=channels,
            layers_per_block=1,
            latent_channels=LATENTS,
            norm_num_groups=gcd(16, channels[0]),
            sample_size=size,
            mid_block_add_attention=False,
        )


def feature_distance(model: ResNet18, ours: Tensor, theirs: Tensor) -> Tensor:
    """How far apart a classifier sees two batches (N, 3, H, W) in [-1, 1].

    Mean over its maps at 1/2, 1/4, ... 1/32 of the size of |difference|, relative to the mean size of the map of ``theirs``.
    """

    def maps(x: Tensor) -> list[Tensor]:
        found = [model.relu(model.bn1(model.conv1(x)))]
        x = model.maxpool(found[0])
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            found.append(x := stage(x))
        return found

    with torch.no_grad():
        wanted = maps(theirs)
    return torch.stack([(a - b).abs().mean() / b.abs().mean() for a, b in zip(maps(ours), wanted, strict=True)]).mean()


def train(
    images: Tensor,
    focus: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    folder: Path,
    batch_size: int = 16,
    seed: int = 0,
    device: str = "cpu",
    **budget: Any,
) -> tuple[AutoencoderKL, dict[str, Any]]:
    """Train an autoencoder on (N, 3, H, W) uint8 images; the checkpoint lies in ``folder``.

    focus   (N, 1, H, W) or (1, 1, H, W) weights of the pixels, any scale; None: all alike
    labels  (N, L) of {0, 1} to train the classifier whose features the reconstruction must keep; None: pixels only
    budget  minutes or steps: see :func:`aimfair.generate.tiny_sd.stage.train_stage`
    """
    vae = build(images.shape[-1], seed).to(device)
    file, features = folder / "features.safetensors", None
    if labels is not None:
        if not file.exists():  # a stage that resumes reads it back
            folder.mkdir(parents=True, exist_ok=True)
            train_classifier(images, labels, epochs=6, seed=seed, device=device).save(file)
        features = load_classifier(file, device).model.requires_grad_(False)
    weights = None if focus is None else focus / focus.mean((1, 2, 3), keepdim=True)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        x = _to_float(images[index.cpu()].to(device))
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        drawn = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        error = (drawn - x).abs()
        if weights is not None:
            error = error * weights[index.cpu() if len(weights) > 1 else [0]].to(device)
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        total = error.mean() + KL_WEIGHT * kl
        return total if features is None else total + FEATURE_WEIGHT * feature_distance(features, drawn, x)

    stage = {"folder": folder, "batch_size": batch_size, "seed": seed, "device": device, **budget}
    record = train_stage("autoencoder", vae, loss, n=len(images), **stage)
    standardise(vae, images, device)
    return vae, record


@torch.no_grad()
def standardise(vae: AutoencoderKL, images: Tensor, device: str = "cpu") -> None:
    """Fold mean and standard deviation of each latent channel into the 1 x 1 convolutions around the latents.

    StableDiffusionPipeline knows one scaling factor and no shift. Folded in, every channel reaches the diffusion
    model with mean 0 and variance 1, and the scaling factor is 1 exactly.
    """
    mean, std = (part.float() for part in encode(vae, images[:4096], device))
    shift = mean.mean((0, 2, 3)).to(device)
    scale = (mean.var((0, 2, 3)) + (std**2).mean((0, 2, 3))).sqrt().to(device)  # of a draw: spread plus uncertainty
    n = len(shift)
    into, out = vae.quant_conv, vae.post_quant_conv
    into.weight[:n] /= scale.view(-1, 1, 1, 1)
    into.bias[:n] = (into.bias[:n] - shift) / scale
    into.bias[n:] -= 2 * scale.log()
    out.bias += out.weight[:, :, 0, 0] @ shift
    out.weight *= scale.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: Tensor, device: str = "cpu", batch_size: int = 128) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) uint8 -> mean and standard deviation of the latents, each (N, C, H/8, W/8) float16 on the CPU."""
    mean, std = [], []
    for batch in images.split(batch_size):
        with autocast(device):
            posterior = vae.encode(_to_float(batch.to(device))).latent_dist
        mean.append(posterior.mean.half().cpu())
        std.append(posterior.std.half().cpu())
    return torch.cat(mean), torch.cat(std)


@torch.inference_mode()
def reconstruct(vae: AutoencoderKL, images: Tensor, device: str = "cpu", batch_size: int = 100) -> Tensor:
    """(N, 3, H, W) uint8 -> what the autoencoder makes of them, likewise: the best that its decoder can draw."""
    parts = []
    for batch in images.split(batch_size):
        latent = vae.encode(_to_float(batch.to(device)).to(vae.dtype)).latent_dist.mean
        drawn = vae.decode(latent).sample.float()
        parts.append(((drawn / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu())
    return torch.cat(parts)


def _to_float(images: Tensor) -> Tensor:
    return images.float().div_(127.5).sub_(1)
