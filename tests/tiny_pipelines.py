"""Text-to-image pipelines of 32 x 32 pixels, untrained, and what is asked of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from aimfair import tiny_sd, tiny_vae
from aimfair.faces import GROUPS
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
    tiny_sd.save(out / "model", tiny_vae.build(32, channels=(16, 16, 16, 32)), text_encoder, tokenizer, unet)
    return out / "model"


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """The images below ``folder`` by their path, (H, W, 3) int."""
    return {str(f.relative_to(folder)): np.asarray(Image.open(f)).astype(int) for f in sorted(folder.rglob("*.png"))}


def alike(one: Path, other: Path) -> bool:
    """Whether two pools hold the same images: a batch of another size may change a pixel by one grey level."""
    first, second = pictures(one), pictures(other)
    return first.keys() == second.keys() and all(np.abs(first[name] - second[name]).max() <= 1 for name in first)
