"""Image to image: real faces redrawn by a text-to-image model at a random strength, their target label kept.

Noise is added to the latent of a face up to a point of the diffusion, and from there it is denoised towards a prompt
(SDEdit, Meng et al., ICLR 2022). The prompt names the target label that the face has, and a protected value drawn by
lot: which value the face has is never asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional as F

from aimfair import datasets, prompts
from aimfair.environment import AimfairError, home
from aimfair.faces import FaceSet
from aimfair.generate import diffusion
from aimfair.prompts import Prompt
from aimfair.study import synthetic
from aimfair.study.profiles import Profile

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Edit(diffusion.Job):
    """One face to redraw; ``replicate`` numbers the edits of one face.

    face      name of the real face
    strength  share of the denoising steps that are taken: 0 would be the face, 1 is text to image
    """

    face: str
    strength: float

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
    steps_taken = strengths(steps, weakest, strongest)
    places: dict[tuple[int, int], list[Prompt]] = {}
    for prompt in bank:
        places.setdefault((prompt.target, prompt.protected), []).append(prompt)
    todo = []
    for number, (name, target, image) in enumerate(zip(faces.names, faces.target.tolist(), faces.images, strict=True)):
        face = f"{pair}|{name}|{hashlib.blake2b(image.numpy().tobytes(), digest_size=8).hexdigest()}"
        protected = (_lot(face, "protected") + draw) % 2
        if (target, protected) not in places:
            raise AimfairError(
                f"no prompt for group ({target}, {protected}) of {pair}: editing needs some for all four"
            )
        texts = places[target, protected]
        prompt = texts[_lot(face, draw, "prompt") % len(texts)]
        strength = steps_taken[_lot(face, draw, "strength") % len(steps_taken)]
        seed = _lot(face, draw, prompt.text, strength)
        todo.append(Edit(pair, number, prompt.id, prompt.text, target, protected, draw, seed, str(name), strength))
    return todo


def strengths(steps: int, weakest: float, strongest: float) -> list[float]:
    """The strengths that ``steps`` denoising steps can have between the two, or the one nearest to their middle."""
    if not 0 < weakest <= strongest <= 1:
        raise AimfairError(f"strengths of edits lie above 0 and up to 1, the weakest first: got {weakest}, {strongest}")
    possible = [round(k / steps, 4) for k in range(1, steps + 1)]
    inside = [value for value in possible if weakest - 1e-4 <= value <= strongest + 1e-4]
    return inside or [min(possible, key=lambda value: abs(value - (weakest + strongest) / 2))]


def image_to_image(originals: Mapping[str, Tensor]) -> Callable[[Any, Mapping[str, Any]], diffusion.Painter]:
    """The painter of edits for :func:`aimfair.generate.diffusion.generate`; ``originals`` are (3, H, W) uint8 by :attr:`Edit.path`."""

    def painter(pipeline: Any, settings: Mapping[str, Any]) -> diffusion.Painter:
        from diffusers import AutoPipelineForImage2Image

        try:
            editor = AutoPipelineForImage2Image.from_pipe(pipeline)
            units = getattr(editor, "default_sample_size", None) or editor.unet.config.sample_size
        except (ValueError, AttributeError) as error:
            raise AimfairError(
                f"{type(pipeline).__name__} has no image-to-image form: edit with a Stable Diffusion model"
            ) from error
        editor.set_progress_bar_config(disable=True)
        size = (units * editor.vae_scale_factor,) * 2
        arguments = diffusion.prompt_arguments(pipeline, settings)

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

    return painter


def edited(
    profile: Profile,
    faces: FaceSet,
    device: str = "cpu",
    data_root: str = "",
    *,
    draw: int = 0,
    weakest: float = 0.4,
    strongest: float = 0.8,
) -> FaceSet:
    """``faces``, in their order, redrawn by the profile's text-to-image model; see :func:`edits` for the draws.

    ``protected`` of the result is what the prompts ask for, drawn by lot: no label of a real face. Images are made where
    they are missing and kept under ``data/synthetic/``; processes that want the same ones wait for each other. The edit
    of a face is the same in every set that holds the face. Where an edit came out black the face stays as it was.

    Raises AimfairError for a profile whose synthetic images were made elsewhere.
    """
    if synthetic.made_elsewhere(profile):
        raise AimfairError(
            f"profile {profile.profile} takes its synthetic images from {profile.generator}, and a folder cannot edit faces: "
            "set generator to a text-to-image model"
        )
    bank = prompts.bank(f"{profile.dataset}/{profile.task}", profile.prompts)
    todo = edits(faces.without_protected(), bank, profile.task, draw, profile.steps, weakest, strongest)
    folder = edits_folder(profile)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        draw_missing(profile, faces, todo, folder, device, data_root)
    return read(faces, todo, folder)


def edits_folder(profile: Profile) -> Path:
    """Where edits lie: one folder per data set, size, generator, steps and guidance; never committed."""
    settings = f"{profile.image_size}-{profile.steps}-{profile.guidance:g}"
    name = f"edited-{profile.dataset}-{synthetic.in_a_name(profile.generator)}-{settings}"
    return home() / "data" / "synthetic" / name


def draw_missing(
    profile: Profile, faces: FaceSet, todo: Sequence[Edit], folder: Path, device: str, data_root: str
) -> None:
    """Draw the edits of ``todo`` (one per face) that are not in ``folder`` yet, those of one strength together.

    Raises AimfairError for edits there that were made with other settings.
    """
    if not synthetic.lacking(profile, todo, folder):
        return
    pipeline = diffusion.load_pipeline(str(synthetic.generator(profile, device, data_root)), device)
    painter = image_to_image({edit.path: image for edit, image in zip(todo, faces.images, strict=True)})
    in_order = sorted(todo, key=lambda edit: edit.strength)
    diffusion.generate(
        pipeline,
        in_order,
        folder,
        steps=profile.steps,
        guidance=profile.guidance,
        size=profile.image_size,
        painter=painter,
    )


def read(faces: FaceSet, todo: Sequence[Edit], folder: Path) -> FaceSet:
    """The edits of ``faces`` that lie in ``folder``, labelled by their prompts and named after face and draw."""
    catalogue = datasets.load("folder", str(folder / todo[0].pair))
    place = {f"{todo[0].pair}/{name}": row for row, name in enumerate(catalogue.names)}
    there = torch.tensor([edit.path in place for edit in todo])
    images = faces.images.clone()
    rows = np.array([place[edit.path] for edit in todo if edit.path in place])
    images[there] = catalogue.read(rows, images.shape[-1])
    names = np.array([f"{edit.face}/edit-{edit.replicate}" for edit in todo])
    return FaceSet(images, faces.target, torch.tensor([edit.protected for edit in todo]), names)


def _lot(*key: object) -> int:
    """63 bits that look random and depend on the key alone."""
    digest = hashlib.blake2b("|".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
