"""Text-to-image pipelines of 32 x 32 pixels, untrained, and what is asked of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from aimfair.faces import GROUPS
from aimfair.generate import tiny_sd
from aimfair.generate.tiny_sd import autoencoder
from aimfair.prompts import Prompt

BANK = [
    Prompt(f"{t}_{p}/{i:02d}", f"Photo of a {'smiling' if t else 'serious'} {'male' if p else 'female'}, {i}", t, p)
    for t, p in GROUPS
    for i in range(3)
]
PAIR = "Smiling_Male"
SETTINGS = {"steps": 2, "guidance": 3.0, "size": 16}


def stable_diffusion(out: Path) -> Path:
    """A StableDiffusionPipeline, saved; returns its folder."""
    tokenizer = tiny_sd.train_tokenizer([p.text for p in BANK], out / "words")
    text_encoder, unet = tiny_sd.build(len(tokenizer), 4, channels=(32, 64))
    tiny_sd.save(out / "model", autoencoder.build(32, channels=(16, 16, 16, 32)), text_encoder, tokenizer, unet)
    return out / "model"


WIDTH = 16
LANGUAGE_MODEL = {
    **{"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, "num_key_value_heads": 2},
    **{"head_dim": 8, "vocab_size": 300, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 256},
}
"""The text encoders of today's models, in small."""


def stable_diffusion_xl(out: Path) -> Any:
    """Two text encoders; the pipeline itself encodes the prompts."""
    words = transformers.CLIPTokenizer.from_pretrained(stable_diffusion(out) / "tokenizer")
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=words.model_max_length,
        projection_dim=32,
        eos_token_id=words.eos_token_id,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=half_size_vae(4),
        text_encoder=transformers.CLIPTextModel(config),
        text_encoder_2=transformers.CLIPTextModelWithProjection(config),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(),
    )


def z_image(out: Path) -> Any:
    """A transformer that reads prompts of different lengths, each without its padding."""
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):  # come as whatever the memory held
        torch.nn.init.normal_(token, std=0.02)
    return diffusers.ZImagePipeline(
        vae=half_size_vae(16),
        text_encoder=transformers.Qwen3Model(transformers.Qwen3Config(num_hidden_layers=2, **LANGUAGE_MODEL)),
        tokenizer=byte_tokenizer(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def flux2_klein(out: Path) -> Any:
    """A transformer that reads three layers of a language model, with all prompts padded to the same length."""
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    blocks = {"block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2}
    vae = diffusers.AutoencoderKLFlux2(
        **blocks, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1
    )
    config = transformers.Qwen3Config(num_hidden_layers=28, **LANGUAGE_MODEL)  # layers 9, 18 and 27 are read
    return diffusers.Flux2KleinPipeline(
        vae=vae,
        text_encoder=transformers.Qwen3ForCausalLM(config),
        tokenizer=byte_tokenizer(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        is_distilled=True,
    )


def cogview4(out: Path) -> Any:
    """A transformer that reads the padding of its prompts too, and pads to the longest of a batch."""
    transformer = diffusers.CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=8,
        rope_axes_dim=(16, 16),
        pos_embed_max_size=16,
    )
    return diffusers.CogView4Pipeline(
        vae=half_size_vae(4),
        text_encoder=transformers.GlmModel(transformers.GlmConfig(num_hidden_layers=2, **LANGUAGE_MODEL)),
        tokenizer=byte_tokenizer(begin=True),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def prx(out: Path) -> Any:
    """A transformer that reads the encoder half of a T5-like language model."""
    half = {**LANGUAGE_MODEL, "num_hidden_layers": 2}
    config = transformers.T5GemmaConfig(encoder=half, decoder=half, vocab_size=half["vocab_size"]).encoder
    transformer = diffusers.PRXTransformer2DModel(
        in_channels=4, context_in_dim=WIDTH, hidden_size=32, num_heads=2, depth=2, axes_dim=[8, 8]
    )
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 256
    return diffusers.PRXPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=T5GemmaEncoder(config),
        tokenizer=tokenizer,
        vae=half_size_vae(4),
        default_sample_size=256,
    )


def saved(pipeline: Any, folder: Path) -> Path:
    """``pipeline`` written to ``folder``, its network so far from zero that prompts show in the pixels."""
    network = getattr(pipeline, "transformer", None) or pipeline.unet
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim > 1:
                weights.mul_(4)
    pipeline.save_pretrained(folder)
    if isinstance(
        pipeline.text_encoder, T5GemmaEncoder
    ):  # PRX is published with the configuration of encoder and decoder
        half = pipeline.text_encoder.config
        both = transformers.T5GemmaConfig(encoder=half, decoder=half, vocab_size=half.vocab_size)
        both.save_pretrained(folder / "text_encoder")
    return folder


def half_size_vae(channels: int) -> Any:
    """An autoencoder whose latents have half the side of the image."""
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        shift_factor=0.0,
    )


def byte_tokenizer(begin: bool = False) -> Any:
    """A token for each byte, in the layout of a language model that chats."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = {word: i for i, word in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()) + marks)}
    inner = Tokenizer(models.BPE(words, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if begin:
        inner.post_processor = processors.TemplateProcessing("<|im_start|> $A", special_tokens=[(marks[1], 257)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=marks[0], additional_special_tokens=marks[1:]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    )
    return tokenizer


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """The images below ``folder`` by their path, (H, W, 3) int."""
    return {str(f.relative_to(folder)): np.asarray(Image.open(f)).astype(int) for f in sorted(folder.rglob("*.png"))}


def alike(one: Path, other: Path) -> bool:
    """Whether two pools hold the same images: a batch of another size may change a pixel by one grey level."""
    first, second = pictures(one), pictures(other)
    return first.keys() == second.keys() and all(np.abs(first[name] - second[name]).max() <= 1 for name in first)
