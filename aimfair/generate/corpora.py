"""Captioned faces on which a tiny text-to-image model is trained: never the people whom the classifier sees.

Each corpus has one true sentence per face, in the words of the prompt banks, weights that tell an autoencoder where
the labels are, and labels for a perceptual loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aimfair import datasets, sampling
from aimfair.environment import AimfairError
from aimfair.prompts import sentence

SEED = 0
"""Captions are drawn once and for all; every training of the same corpus reads the same sentences."""

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


def _labels(table: pd.DataFrame) -> tuple[Tensor, tuple[str, ...]]:
    return torch.from_numpy(table.to_numpy(np.int64, copy=True)), tuple(table)


# FaceWorld

FACEWORLD_WORDS = {
    "Eyeglasses": "eyeglasses",
    "Wearing_Hat": "a hat",
    "Full_Beard": "a full beard",
    "Goatee": "a goatee",
    "Mustache": "a mustache",
    "5_o_Clock_Shadow": "stubble",
    "Bangs": "bangs",
    "Wearing_Lipstick": "lipstick",
    "Wearing_Earrings": "earrings",
}
FACEWORLD_POSES = (
    ("yaw", 0.3, "head turned slightly right", "head turned slightly left"),
    ("roll", 5, "head tilted slightly right", "head tilted slightly left"),
    ("pitch", 0.4, "head tilted slightly downward", "head tilted slightly upward"),
)
"""Angle, from where on it is said, and what is said of a positive and of a negative one."""


def faceworld(root: str, size: int, n: int = 24_000) -> Corpus:
    """``n`` cartoons of FaceWorld: another style and other scenes than the classifier's; smile, gender and age balanced.

    ``root`` is ignored: FaceWorld is drawn, not read.
    """
    world = datasets.load("faceworld", style="web", train=0, validation=0, test=0, corpus=n)
    chosen, table = np.arange(len(world)), world.attributes
    binary = [name for name in table if table[name].isin((0, 1)).all()]
    captions = write_captions(faceworld_caption, table, chosen)
    return Corpus(world.read(chosen, size), captions, faceworld_focus(table, size), *_labels(table[binary]))


def faceworld_caption(face: Face, rng: np.random.Generator) -> str:
    """Who is shown, then up to three other attributes, drawn at random, and last the pose of the head."""
    who, seen = _who(face, rng), _faceworld_features(face)
    chosen = sorted(rng.permutation(len(seen))[: rng.choice(4, p=(0.15, 0.35, 0.3, 0.2))])
    poses = [right if face[a] > 0 else left for a, least, right, left in FACEWORLD_POSES if abs(face[a]) > least]
    return sentence(who, [seen[i] for i in chosen] + [str(rng.choice(poses or ["head facing the camera"]))])


def _faceworld_features(face: Face) -> list[str]:
    """What can be said of a face besides its groups, most visible first."""
    tone = next((t for t in ("Black", "Brown", "Blond", "Red", "Gray") if face[f"{t}_Hair"]), "")
    length = "long" if face["Long_Hair"] else "short"
    hair = "a bald head" if face["Bald"] else f"{length}{' curly' if face['Curly_Hair'] else ''} {tone.lower()} hair"
    covered = {"Bangs"} if face["Wearing_Hat"] else {"Mustache"} if face["Full_Beard"] else set()
    seen = [words for name, words in FACEWORLD_WORDS.items() if face[name] and name not in covered]
    bald_under_hat = face["Bald"] and face["Wearing_Hat"]
    return ([] if bald_under_hat else [hair]) + seen + (["dark skin"] if face["Dark_Skin"] else [])


def faceworld_focus(table: pd.DataFrame, size: int) -> Tensor:
    """(n, 1, size, size): the weights of n faces, each where the table says that its head is."""
    place = {
        name: torch.from_numpy(np.array(table[name], np.float32)).view(-1, 1, 1, 1)
        for name in ("head_x", "head_y", "head_scale", "roll", "yaw", "pitch")
    }
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    dx, dy = (axis - place["head_x"]) / place["head_scale"], (axis[:, None] - place["head_y"]) / place["head_scale"]
    angle = torch.deg2rad(place["roll"])
    u = dx * angle.cos() + dy * angle.sin() - 0.2 * place["yaw"]
    v = dy * angle.cos() - dx * angle.sin() - 0.07 * place["pitch"]
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


# CelebA

CELEBA_WORDS = {
    "Eyeglasses": "eyeglasses",
    "Wearing_Hat": "a hat",
    "5_o_Clock_Shadow": "stubble",
    "Mustache": "a mustache",
    "Goatee": "a goatee",
    "Sideburns": "sideburns",
    "Wearing_Lipstick": "lipstick",
    "Heavy_Makeup": "heavy makeup",
    "Wearing_Earrings": "earrings",
    "Wearing_Necklace": "a necklace",
    "Wearing_Necktie": "a necktie",
    "Bangs": "bangs",
    "Receding_Hairline": "a receding hairline",
    "Arched_Eyebrows": "arched eyebrows",
    "Bushy_Eyebrows": "bushy eyebrows",
    "Bags_Under_Eyes": "bags under the eyes",
    "Narrow_Eyes": "narrow eyes",
    "Big_Nose": "a large nose",
    "Pointy_Nose": "a pointed nose",
    "Big_Lips": "full lips",
    "Double_Chin": "a double chin",
    "Oval_Face": "an oval face",
    "Pale_Skin": "pale skin",
    "Mouth_Slightly_Open": "mouth slightly open",
}
"""How captions say an attribute. Left out: judgements (Attractive), the camera (Blurry), what all but repeats the
smile (High_Cheekbones, Rosy_Cheeks), and Chubby, which Double_Chin says milder."""

CELEBA_LABELS = (
    "Smiling", "Male", "Young", "Eyeglasses", "Mouth_Slightly_Open", "No_Beard", "Wearing_Lipstick",
    "Wearing_Hat", "Bangs", "Black_Hair", "Blond_Hair", "Gray_Hair", "Bald", "Pale_Skin",
)  # fmt: skip


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
    return Corpus(
        faces.read(chosen, size),
        write_captions(_celeba_caption, table, chosen),
        aligned_focus(eyes=0.51, mouth=0.70, size=size),
        *_labels(table.iloc[chosen][list(CELEBA_LABELS)]),
    )


def _celeba_caption(face: Face, rng: np.random.Generator) -> str:
    """Who is shown, then up to three other attributes that the face has."""
    who = _who(face, rng)
    seen = [words for name, words in CELEBA_WORDS.items() if face[name]]
    if face["Male"] and not (face["No_Beard"] or face["Goatee"] or face["Mustache"] or face["5_o_Clock_Shadow"]):
        seen.insert(0, "a beard")
    hair = _celeba_hair(face, rng)
    count = rng.choice(4, p=(0.1, 0.3, 0.3, 0.3))
    # Hair is the most visible of all: said of half of the faces whatever else there is to say.
    chosen = [hair] if hair and count and rng.random() < 0.5 else []
    others = sorted(rng.permutation(len(seen))[: count - len(chosen)])
    return sentence(who, chosen + [seen[i] for i in others])


def _celeba_hair(face: Face, rng: np.random.Generator) -> str:
    if face["Bald"]:
        return "a bald head"
    tone = next((tone for tone in ("Black", "Brown", "Blond", "Gray") if face[f"{tone}_Hair"]), "")
    form = next((form for form in ("Straight", "Wavy") if face[f"{form}_Hair"]), "")
    if not tone:
        return ""
    return f"{form} {tone} hair".strip().lower() if rng.random() < 0.5 else f"{tone} hair".lower()


# FairFace

FAIRFACE_MARGIN = 4 / 64
FAIRFACE_AGES = {
    "0-2": range(1, 3), "3-9": range(3, 10), "10-19": range(10, 20), "20-29": range(20, 30), "30-39": range(30, 40),
    "40-49": range(40, 50), "50-59": range(50, 60), "60-69": range(60, 70), "more than 70": range(70, 91, 5),
}  # fmt: skip
"""Age range of the label list -> ages in years of which a caption names one. The few faces beyond 70 share five
numbers, so that each is seen often enough to be learnt; the prompt bank uses the same five."""


def fairface(root: str, size: int) -> Corpus:
    """FairFace's training images with sentences that name age, race and gender.

    UTKFace shows the face slightly larger. The mean images of the most frontal faces of both sets agree best when
    FairFace is enlarged by 1/0.94 about its centre (correlation .956 instead of .903 after removing low frequencies):
    decoded at 68 px, the middle 64 are kept. Eyes and mouth then lie at 0.28 and 0.70 of the height.
    """
    faces = datasets.load("fairface", root)
    chosen = np.flatnonzero(faces.attributes["split"] == "train")
    table = faces.attributes.iloc[chosen]
    unknown = sorted(set(table["age"]) - set(FAIRFACE_AGES))
    if unknown:
        raise AimfairError(f"{root}: FairFace has no age range {unknown[0]!r}; fetch the label list again")
    margin = round(size * FAIRFACE_MARGIN / 2)
    images = faces.read(chosen, size + 2 * margin)[:, :, margin : margin + size, margin : margin + size]
    ages = np.array([min(FAIRFACE_AGES[age]) for age in table["age"]])
    labels = {
        "Female": table["Female"],
        "White": table["White"],
        **{f"age >= {age}": ages >= age for age in (10, 20, 40, 60)},
        **{race: table["race"] == race for race in ("Black", "Indian", "Latino_Hispanic", "Middle Eastern")},
        "Asian": table["race"].isin(("East Asian", "Southeast Asian")),
    }
    return Corpus(
        images.contiguous(),
        write_captions(_fairface_caption, faces.attributes, chosen),
        aligned_focus(eyes=0.28, mouth=0.70, size=size),
        *_labels(pd.DataFrame(labels)),
    )


def _fairface_caption(face: Face, rng: np.random.Generator) -> str:
    """Age nine times in ten; instead of the race "non-white" once in ten, as plain prompts do; the gender always."""
    age = f"{rng.choice(FAIRFACE_AGES[face['age']])} year old"
    race = "white" if face["White"] else face["race"].replace("_", " ") if rng.random() < 0.9 else "non-white"
    gender = "female" if face["Female"] else "male"
    return sentence(" ".join(([age] if rng.random() < 0.9 else []) + [race, gender]))


CORPORA: dict[str, Callable[[str, int], Corpus]] = {"faceworld": faceworld, "celeba": celeba, "fairface": fairface}
