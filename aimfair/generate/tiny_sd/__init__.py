"""A tiny but real Stable Diffusion, trained from scratch on captioned faces in less than an hour on two CPU cores.

All parts are those of the large one, in diffusers' and transformers' own classes: an autoencoder with 8 x 8
latents, a CLIP text encoder with its byte-level tokenizer, a UNet with cross-attention, a DPM-Solver++ scheduler. What
comes out is a folder that ``StableDiffusionPipeline.from_pretrained`` loads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aimfair.environment import AimfairError, aside
from aimfair.generate.tiny_sd import autoencoder
from aimfair.generate.tiny_sd.stage import LR, train_stage

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

CONTEXT = 40
TEXT_WIDTH = 128
VOCABULARY = 1200
CHANNELS = (64, 128)
CAPTION_DROPOUT = 0.1
BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "rescale_betas_zero_snr": True,  # else every image keeps the mean colour of the corpus
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}
"""Noise schedule: Stable Diffusion's, rescaled to end in pure noise (Lin et al., WACV 2024)."""


def train(
    images: Tensor,
    captions: Sequence[str],
    out: str | Path,
    *,
    focus: Tensor | None = None,
    labels: Tensor | None = None,
    minutes: float = 40.0,
    steps: tuple[int, int] | None = None,
    batch_size: int = 128,
    seed: int = 0,
    device: str = "cpu",
    about: str = "",
) -> Path:
    """Train autoencoder, text encoder and UNet on (N, 3, H, W) uint8 images with one caption each.

    out      folder of the pipeline, which appears when all is done; ``<out>.partial`` keeps the half-trained state
             every two minutes, and the same call made again goes on from there
    focus    (N, 1, H, W) or (1, 1, H, W) weights of the pixels in the autoencoder's loss
    labels   (N, L) of {0, 1}: attributes whose looks the autoencoder must keep
    minutes  for both stages, half of it for each
    steps    (autoencoder, UNet) instead of minutes, for a result that does not depend on the machine's speed
    about    what the corpus is, for ``training.json``

    Returns ``out``. Raises AimfairError if images and captions do not match, the size is no multiple of 8, or ``out`` exists.
    """
    out = Path(out)
    size = images.shape[-1]
    if len(images) != len(captions) or len(images) == 0:
        raise AimfairError(f"{len(images)} images but {len(captions)} captions: a corpus has one caption per image")
    if size % 8 or size != images.shape[-2]:
        raise AimfairError(f"images of {size} x {images.shape[-2]} pixels: a tiny Stable Diffusion wants squares of 8n")
    if not 0 < minutes < inf or min(steps or (1,)) < 1 or batch_size < 1:
        raise AimfairError(
            f"a training takes minutes, steps and images at a time: got {minutes}, {steps}, {batch_size}"
        )
    if out.exists():
        raise AimfairError(f"{out} exists: move it away, or choose another folder for the new pipeline")
    folder = out.with_name(out.name + ".partial")
    first, second = steps or (0, 0)
    shared: dict[str, Any] = {"folder": folder, "seed": seed, "device": device, "minutes": minutes / 2}
    vae, vae_record = autoencoder.train(images, focus, labels, steps=first, **shared)
    latents = autoencoder.encode(vae, images, device)
    tokenizer = train_tokenizer(captions, folder / "tokenizer")
    text_encoder, unet = build(len(tokenizer), size // 8, seed)
    shared |= {"batch_size": batch_size, "steps": second}
    record = train_unet(text_encoder, unet, tokenizer, latents, captions, **shared)
    scalars = [sum(p.numel() for p in part.parameters()) for part in (vae, unet, text_encoder)]
    settings = {
        "about": about,
        "images": len(images),
        "size": size,
        "minutes": None if steps else minutes,
        "steps": steps,
        "batch_size": batch_size,
        "lr": LR,
        "seed": seed,
        "device": torch.device(device).type,
        "threads": torch.get_num_threads(),
        "autoencoder": vae_record | {"scalars": scalars[0]},
        "unet": record | {"scalars": scalars[1], "text_encoder_scalars": scalars[2]},
    }
    with aside(out) as partial:
        save(partial, vae, text_encoder, tokenizer, unet)
        (partial / "training.json").write_text(json.dumps(settings, indent=1) + "\n")
    shutil.rmtree(folder)
    return out


def train_tokenizer(captions: Sequence[str], folder: Path, vocabulary: int = VOCABULARY) -> CLIPTokenizer:
    """Byte-level BPE over the captions in CLIP's layout: 256 bytes, the same ending a word, merges, two marks.

    ``folder`` gets ``vocab.json`` and ``merges.txt``. Any text can be encoded, also words the corpus does not have.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    word = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(word, behavior="removed", invert=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    words = alphabet + [letter + "</w>" for letter in alphabet]
    words += sorted({a + b for a, b in merges} - set(words)) + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({w: i for i, w in enumerate(words)}, ensure_ascii=False), encoding="utf-8"
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "pad_token": "<|endoftext|>"})
    )
    return CLIPTokenizer.from_pretrained(folder)


def build(
    vocabulary: int, latent_size: int, seed: int = 0, channels: tuple[int, ...] = CHANNELS
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Fresh text encoder (width 128, 2 layers, 4 heads) and UNet (cross-attention at every level)."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
        text_encoder = CLIPTextModel(config)
        unet = UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=autoencoder.LATENTS,
            out_channels=autoencoder.LATENTS,
            down_block_types=("CrossAttnDownBlock2D",) * len(channels),
            up_block_types=("CrossAttnUpBlock2D",) * len(channels),
            block_out_channels=channels,
            layers_per_block=1,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=[max(1, c // 64) for c in channels],  # diffusers' name for the number of heads
            norm_num_groups=16,
        )
    return text_encoder, unet


def train_unet(
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    tokenizer: CLIPTokenizer,
    latents: tuple[Tensor, Tensor],
    captions: Sequence[str],
    *,
    device: str = "cpu",
    **stage: Any,
) -> dict[str, Any]:
    """Train UNet and text encoder together to predict v = alpha * noise - sigma * latent (Salimans and Ho, 2022).

    latents  mean and standard deviation of every image's latents; a fresh sample is drawn whenever one is used
    stage    folder, budget, batch size and seed: see :func:`aimfair.generate.tiny_sd.stage.train_stage`
    """
    from diffusers import DDPMScheduler

    def encode(texts: Sequence[str]) -> Tensor:
        padded = tokenizer(list(texts), padding="max_length", max_length=CONTEXT, truncation=True)
        return torch.tensor(padded["input_ids"])

    tokens, empty = encode(captions), encode([""])
    alphas = DDPMScheduler(**BETAS).alphas_cumprod
    mean, std = (part.to(device) for part in latents)
    both = nn.ModuleDict({"text_encoder": text_encoder, "unet": unet}).to(device)

    def loss(index: Tensor, generator: torch.Generator) -> Tensor:
        n = len(index)
        t = torch.randint(0, len(alphas), (n,), generator=generator)
        dropped = torch.rand(n, 1, generator=generator) < CAPTION_DROPOUT
        text = torch.where(dropped, empty, tokens[index.cpu()]).to(device)
        jitter = torch.randn(mean[:n].shape, generator=generator).to(device)
        noise = torch.randn(mean[:n].shape, generator=generator).to(device)
        latent = mean[index].float() + std[index].float() * jitter
        alpha, sigma = (part.sqrt().view(-1, 1, 1, 1).to(device) for part in (alphas[t], 1 - alphas[t]))
        v = unet(alpha * latent + sigma * noise, t.to(device), text_encoder(text)[0]).sample
        return nn.functional.mse_loss(v.float(), alpha * noise - sigma * latent)

    return train_stage("denoiser", both, loss, n=len(mean), weight_decay=0.01, device=device, **stage)


def save(
    folder: Path, vae: Any, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> None:
    """Write all parts as one StableDiffusionPipeline in float16 safetensors."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
    from transformers.utils.logging import disable_progress_bar

    pipeline = StableDiffusionPipeline(
        vae=vae.cpu().half(),
        text_encoder=text_encoder.cpu().half(),
        tokenizer=tokenizer,
        unet=unet.cpu().half(),
        scheduler=DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", steps_offset=1, **BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if folder.exists():
        shutil.rmtree(folder)
    disable_progress_bar()  # of writing 15 MB
    pipeline.save_pretrained(folder)
    config = folder / "text_encoder" / "config.json"  # half on disk, but computed in float32 unless asked otherwise
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    for name in ("vocab.json", "merges.txt"):  # newer transformers write tokenizer.json alone; older ones read these
        source = Path(tokenizer.name_or_path) / name
        if source.exists():
            shutil.copy(source, folder / "tokenizer" / name)
