"""Captioned faces on which a tiny text-to-image model is trained: never the people whom the classifier sees.

Each corpus has one true sentence per face, in the words of the prompt banks, weights that tell an autoencoder where
the labels are, and labels for a perceptual loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor

from aimfair import datasets, sampling
from aimfair.environment import AimfairError
from aimfair.prompts import sentence

SEED = 0
"""Captions are drawn once and for all; every training of the same corpus reads the same sentences."""

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text(encoding="utf-8"))
"""How the captions of each corpus say what a face shows."""

FAIRFACE_MARGIN = 4 / 64

Face = dict[str, Any]
"""One row of a catalogue's attributes."""


class Corpus(NamedTuple):
    """N captioned faces.

    images    (N, 3, S, S) uint8, RGB
    captions  N sentences
    focus     (N, 1, S, S) float32: 1 on the background, about 2 on the face, up to 6 on eyes and mouth; (1, 1, S, S)
              where all faces are aligned to one place. An autoencoder whose loss is weighted so spends its few
              latents where the labels are
    labels    (N, L) int64 of {0, 1}: what the images show, one column per attribute
    names     the L attributes
    """

    images: Tensor
    captions: list[str]
    focus: Tensor
    labels: Tensor
    names: tuple[str, ...]


def load(name: str, root: str, size: int) -> Corpus:
    """The corpus ``name`` at ``size`` x ``size`` pixels, read from ``root``. Raises AimfairError for an unknown name."""
    if name not in CORPORA:
        raise AimfairError(f"no corpus {name!r}; corpus must be one of {', '.join(CORPORA)}")
    return CORPORA[name](root, size)


def write_captions(
    write: Callable[[Face, np.random.Generator], str], table: pd.DataFrame, chosen: Sequence[int] | np.ndarray
) -> list[str]:
    """One sentence for each of the rows ``chosen``; its random choices depend on the row's number only."""
    rows = table.iloc[chosen].to_dict("records")
    return [write(row, np.random.default_rng((SEED, int(i)))) for row, i in zip(rows, chosen, strict=True)]


def _who(face: Face, rng: np.random.Generator) -> str:
    """Smile and gender are always named, age nine times in ten."""
    smile = "smiling" if face["Smiling"] else str(rng.choice(["neutral", "serious"]))
    age = "young" if face["Young"] else "old"
    return " ".join((smile, *([age] if rng.random() < 0.9 else []), "male" if face["Male"] else "female"))


def _first(face: Face, kinds: str) -> str:
    """The first of ``kinds`` of hair that the face has, or ""."""
    return next((kind for kind in kinds.split() if face[f"{kind}_Hair"]), "")


def _labels(table: pd.DataFrame) -> tuple[Tensor, tuple[str, ...]]:
    return torch.from_numpy(table.to_numpy(np.int64, copy=True)), tuple(table)


def faceworld(root: str, size: int, n: int = 24_000) -> Corpus:
    """``n`` cartoons of FaceWorld: another style and other scenes than the classifier's; smile, gender and age balanced.

    ``root`` is ignored: FaceWorld is drawn, not read.
    """
    world = datasets.load("faceworld", style="web", train=0, validation=0, test=0, corpus=n)
    chosen, table = np.arange(len(world)), world.attributes
    binary = [name for name in table if table[name].isin((0, 1)).all()]
    captions = write_captions(faceworld_caption, table, chosen)
    return Corpus(world.read(chosen, size), captions, _faceworld_focus(table, size), *_labels(table[binary]))


def faceworld_caption(face: Face, rng: np.random.Generator) -> str:
    """Who is shown, then up to three other attributes, drawn at random, and last the pose of the head."""
    who = _who(face, rng)
    length, tone = "long" if face["Long_Hair"] else "short", _first(face, "Black Brown Blond Red Gray").lower()
    hair = "a bald head" if face["Bald"] else f"{length}{' curly' if face['Curly_Hair'] else ''} {tone} hair"
    covered = "Bangs" if face["Wearing_Hat"] else "Mustache" if face["Full_Beard"] else ""
    seen = [] if face["Bald"] and face["Wearing_Hat"] else [hair]
    seen += [words for name, words in WORDS["faceworld"]["words"].items() if face[name] and name != covered]
    seen += ["dark skin"] if face["Dark_Skin"] else []
    chosen = sorted(rng.permutation(len(seen))[: rng.choice(4, p=(0.15, 0.35, 0.3, 0.2))])
    poses = [
        right if face[angle] > 0 else left
        for angle, least, right, left in WORDS["faceworld"]["poses"]
        if abs(face[angle]) > least
    ]
    return sentence(who, [seen[i] for i in chosen] + [str(rng.choice(poses or ["head facing the camera"]))])


def _faceworld_focus(table: pd.DataFrame, size: int) -> Tensor:
    """(n, 1, size, size): the weights of n faces, each where the table says that its head is."""
    names = ["head_x", "head_y", "head_scale", "roll", "yaw", "pitch"]
    x, y, scale, roll, yaw, pitch = torch.from_numpy(table[names].to_numpy(np.float32).T.copy()).view(6, -1, 1, 1, 1)
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    dx, dy = (axis - x) / scale, (axis[:, None] - y) / scale
    angle = torch.deg2rad(roll)
    u = dx * angle.cos() + dy * angle.sin() - 0.2 * yaw
    v = dy * angle.cos() - dx * angle.sin() - 0.07 * pitch
    return _focus(u, v)


def aligned_focus(eyes: float, mouth: float, size: int) -> Tensor:
    """(1, 1, size, size): the weights of faces that are all aligned to one place.

    ``eyes`` and ``mouth`` are their heights as shares of the picture, from the top.
    """
    axis = (torch.arange(size) + 0.5) / size
    unit = (mouth - eyes) / 0.75  # FaceWorld's head units: eyes at -0.15, mouth at 0.6
    return _focus((axis - 0.5) / unit, (axis[:, None] - eyes) / unit - 0.15)[None, None]


def _focus(u: Tensor, v: Tensor) -> Tensor:
    """The weight at (u, v) of a head that looks at the camera, in units of the head."""

    def spot(v0: float, across: float, along: float) -> Tensor:
        return torch.exp(-((u / across) ** 2) - ((v - v0) / along) ** 2)

    return 1 + spot(0.1, 0.8, 1.0) + 4 * spot(0.6, 0.45, 0.25) + 2.5 * spot(-0.15, 0.6, 0.22)


def celeba(root: str, size: int) -> Corpus:
    """CelebA's training images of people with an odd identity number, with sentences made of their attributes.

    A study with ``split: identities`` gives the others to the classifier.
    """
    faces = datasets.load("celeba", root)
    table = faces.attributes
    if "identity" not in table:
        raise AimfairError(f"no identity_CelebA.txt in {root}: without it people cannot be kept apart; fetch it")
    candidates = np.flatnonzero(table["split"] == "train")
    _, odd = sampling.by_identity(table["identity"].to_numpy()[candidates])
    chosen = candidates[odd]
    captions, focus = write_captions(_celeba_caption, table, chosen), aligned_focus(eyes=0.51, mouth=0.70, size=size)
    return Corpus(faces.read(chosen, size), captions, focus, *_labels(table.iloc[chosen][WORDS["celeba"]["labels"]]))


def _celeba_caption(face: Face, rng: np.random.Generator) -> str:
    """Who is shown, then up to three other attributes that the face has."""
    who = _who(face, rng)
    seen = [words for name, words in WORDS["celeba"]["words"].items() if face[name]]
    if face["Male"] and not (face["No_Beard"] or face["Goatee"] or face["Mustache"] or face["5_o_Clock_Shadow"]):
        seen.insert(0, "a beard")
    hair, tone = "", _first(face, "Black Brown Blond Gray")
    if face["Bald"]:
        hair = "a bald head"
    elif tone:
        form = _first(face, "Straight Wavy") if rng.random() < 0.5 else ""
        hair = f"{form} {tone} hair".strip().lower()
    count = rng.choice(4, p=(0.1, 0.3, 0.3, 0.3))
    # Hair is the most visible of all: said of half of the faces whatever else there is to say.
    chosen = [hair] if hair and count and rng.random() < 0.5 else []
    others = sorted(rng.permutation(len(seen))[: count - len(chosen)])
    return sentence(who, chosen + [seen[i] for i in others])


def fairface(root: str, size: int) -> Corpus:
    """FairFace's training images with sentences that name age, race and gender.

    UTKFace shows the face slightly larger. The mean images of the most frontal faces of both sets agree best when
    FairFace is enlarged by 1/0.94 about its centre (correlation .956 instead of .903 after removing low frequencies):
    decoded at 68 px, the middle 64 are kept. Eyes and mouth then lie at 0.28 and 0.70 of the height.
    """
    faces = datasets.load("fairface", root)
    chosen = np.flatnonzero(faces.attributes["split"] == "train")
    table = faces.attributes.iloc[chosen]
    if unknown := sorted(set(table["age"]) - set(WORDS["fairface"]["ages"])):
        raise AimfairError(f"{root}: FairFace has no age range {unknown[0]!r}; fetch the label list again")
    margin = round(size * FAIRFACE_MARGIN / 2)
    images = faces.read(chosen, size + 2 * margin)[:, :, margin : margin + size, margin : margin + size]
    ages = np.array([WORDS["fairface"]["ages"][age][0] for age in table["age"]])
    labels = {
        "Female": table["Female"],
        "White": table["White"],
        **{f"age >= {age}": ages >= age for age in (10, 20, 40, 60)},
        **{race: table["race"] == race for race in ("Black", "Indian", "Latino_Hispanic", "Middle Eastern")},
        "Asian": table["race"].isin(("East Asian", "Southeast Asian")),
    }
    captions, focus = write_captions(_fairface_caption, faces.attributes, chosen), aligned_focus(0.28, 0.70, size)
    return Corpus(images.contiguous(), captions, focus, *_labels(pd.DataFrame(labels)))


def _fairface_caption(face: Face, rng: np.random.Generator) -> str:
    """Age nine times in ten; instead of the race "non-white" once in ten, as plain prompts do; the gender always."""
    age = f"{rng.choice(WORDS['fairface']['ages'][face['age']])} year old"
    race = "white" if face["White"] else face["race"].replace("_", " ") if rng.random() < 0.9 else "non-white"
    gender = "female" if face["Female"] else "male"
    return sentence(" ".join(([age] if rng.random() < 0.9 else []) + [race, gender]))


CORPORA: dict[str, Callable[[str, int], Corpus]] = {"faceworld": faceworld, "celeba": celeba, "fairface": fairface}
