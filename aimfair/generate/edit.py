"""Image to image: real faces redrawn by a text-to-image model at a random strength, their target label kept.

Noise is added to the latent of a face up to a point of the diffusion, and from there it is denoised towards a prompt
(SDEdit, Meng et al., ICLR 2022). The prompt names the target label that the face has, and a protected value drawn by
lot: which value the face has is never asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from aimfair import datasets
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.generate import draw
from aimfair.generate.manifest import Job, hash_of, prompts_of
from aimfair.prompts import Prompt

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Edit(Job):
    """One face to redraw; ``replicate`` numbers the edits of one face."""

    face: str  # name of the real face
    strength: float  # share of the denoising steps that are taken: 0 would be the face, 1 is text to image

    @property
    def path(self) -> str:
        """Where the image lies: in the folder of the labels that its prompt names, called after its seed."""
        return f"{self.pair}/{self.target}_{self.protected}/{self.seed:016x}.png"


def edits(
    faces: FaceSet, bank: Sequence[Prompt], pair: str, draw: int, steps: int, weakest: float, strongest: float
) -> list[Edit]:
    """One edit of each face, in the order of ``faces``, whose protected labels are not read.

    Prompt, strength and seed are drawn from the face's name and pixels and from ``draw``. The protected value of draw 0
    is drawn by lot; draw 1 asks for the other one, draw 2 for the first again, with another prompt and other noise.

    Raises AimfairError for a bank without a prompt for some group, or a range of strengths that is none.
    """
    possible = strengths(steps, weakest, strongest)
    todo = []
    for number, (name, target, image) in enumerate(zip(faces.names, faces.target.tolist(), faces.images, strict=True)):
        face = f"{pair}|{name}|{hashlib.blake2b(image.numpy().tobytes(), digest_size=8).hexdigest()}"
        protected = (hash_of(f"{face}|protected") + draw) % 2
        texts = prompts_of(bank, target, protected, pair)
        prompt = texts[hash_of(f"{face}|{draw}|prompt") % len(texts)]
        strength = possible[hash_of(f"{face}|{draw}|strength") % len(possible)]
        seed = hash_of(f"{face}|{draw}|{prompt.text}|{strength}")
        todo.append(Edit(pair, number, prompt.id, prompt.text, target, protected, draw, seed, str(name), strength))
    return todo


def strengths(steps: int, weakest: float, strongest: float) -> list[float]:
    """The strengths that ``steps`` denoising steps can have between the two, or the one nearest to their middle."""
    if not 0 < weakest <= strongest <= 1:
        raise AimfairError(f"strengths of edits lie above 0 and up to 1, the weakest first: got {weakest}, {strongest}")
    possible = [round(k / steps, 4) for k in range(1, steps + 1)]
    inside = [value for value in possible if weakest - 1e-4 <= value <= strongest + 1e-4]
    return inside or [min(possible, key=lambda value: abs(value - (weakest + strongest) / 2))]


def edit(pipeline: Any, faces: FaceSet, todo: Sequence[Edit], folder: Path, **settings: Any) -> None:
    """Draw those edits of ``todo``, one for each of ``faces``, that are not in ``folder`` yet.

    ``settings`` are those of :func:`aimfair.generate.draw.draw`. Raises AimfairError as
    :func:`aimfair.generate.draw.generate` does, and for a pipeline without an image-to-image form.
    """
    from diffusers import AutoPipelineForImage2Image

    originals = {edit.path: image for edit, image in zip(todo, faces.images, strict=True)}

    def image_to_image(pipeline: Any, settings: Mapping[str, Any]) -> draw.Painter:
        try:
            editor = AutoPipelineForImage2Image.from_pipe(pipeline)
            units = getattr(editor, "default_sample_size", None) or editor.unet.config.sample_size
        except (ValueError, AttributeError) as error:
            raise AimfairError(
                f"{type(pipeline).__name__} has no image-to-image form: edit with a Stable Diffusion model"
            ) from error
        editor.set_progress_bar_config(disable=True)
        size = (units * editor.vae_scale_factor,) * 2
        arguments = draw.prompt_arguments(pipeline, settings)

        def paint(batch: Sequence[Any]) -> list[Image]:
            painted: list[Image] = []
            for strength, same in groupby(batch, key=lambda edit: edit.strength):  # the pipeline knows one per call
                part = list(same)
                images = torch.stack([originals[edit.path] for edit in part]).float() / 255
                if images.shape[2:] != size:
                    images = F.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)
                painted += editor(
                    **arguments(part),
                    image=images,
                    strength=min(1.0, strength + 0.5 / settings["steps"]),  # it rounds the number of steps down
                    num_inference_steps=settings["steps"],
                    guidance_scale=settings["guidance"],
                    generator=[torch.Generator().manual_seed(edit.seed) for edit in part],
                    output_type="pil",
                ).images
            return painted

        return paint

    by_strength = sorted(todo, key=lambda edit: edit.strength)
    draw.generate(pipeline, by_strength, folder, painter=image_to_image, **settings)


def read_edits(faces: FaceSet, todo: Sequence[Edit], folder: Path) -> FaceSet:
    """``faces`` as they were edited in ``folder``, labelled by the prompts and named after face and draw; where there is
    no edit, because it came out black, the face as it was."""
    catalogue = datasets.load("folder", str(folder / todo[0].pair))
    place = {f"{todo[0].pair}/{name}": row for row, name in enumerate(catalogue.names)}
    images, drawn = faces.images.clone(), [n for n, edit in enumerate(todo) if edit.path in place]
    images[drawn] = catalogue.read(np.array([place[todo[n].path] for n in drawn]), images.shape[-1])
    names = np.array([f"{edit.face}/edit-{edit.replicate}" for edit in todo])
    return FaceSet(images, faces.target, torch.tensor([edit.protected for edit in todo]), names)
