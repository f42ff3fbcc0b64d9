"""Captioned faces on which a tiny text-to-image model is trained: never the people whom the classifier sees.

Each corpus is a function that returns the images with one true sentence each, in the words of the prompt
banks, weights that tell an autoencoder where the labels are, and labels for a perceptual loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aimfair import datasets, sampling
from aimfair.datasets import faceworld
from aimfair.environment import AimfairError, resolve
from aimfair.prompts import sentence
from aimfair.study.profiles import Profile

SEED = 0
"""Captions are drawn once and for all; every training of the same corpus reads the same sentences."""


class Corpus(NamedTuple):
    """N captioned faces.

    images    (N, 3, S, S) uint8, RGB
    captions  N sentences
    focus     (N, 1, S, S) float32: 1 on the background, more on the face, most on eyes and mouth; (1, 1, S, S)
              where all faces are aligned to one place
    labels    (N, L) int64 of {0, 1}: what the images show, one column per attribute
    names     the L attributes
    """

    images: Tensor
    captions: list[str]
    focus: Tensor
    labels: Tensor
    names: tuple[str, ...]


def load(profile: Profile, data_root: str = "") -> Corpus:
    """The external corpus that ``profile.corpus`` names, at the profile's image size.

    Its files are looked for in ``profile.corpus_root``; else in ``data_root`` where classifier and generator
    share a data set; else in a folder beside ``data_root`` that bears the corpus' name.

    Raises AimfairError for an unknown corpus, for one that is not found, and for one that would share people
    with the classifier's training set.
    """
    if profile.corpus not in CORPORA:
        known = ", ".join(CORPORA)
        raise AimfairError(f"profile {profile.profile}: no corpus {profile.corpus!r}; corpus must be one of {known}")
    if profile.corpus == profile.dataset != "faceworld" and profile.split != "identities":
        raise AimfairError(
            f"profile {profile.profile}: corpus and classifier would share people of {profile.corpus}; set split: identities"
        )
    return CORPORA[profile.corpus](root_of(profile, data_root), profile.image_size)


def root_of(profile: Profile, data_root: str = "") -> str:
    """Folder of the profile's corpus; empty for FaceWorld, which is drawn. Raises AimfairError where there is none."""
    if profile.corpus == "faceworld":
        return ""
    if profile.corpus_root:
        folder = resolve(profile.corpus_root)
    elif not data_root and profile.corpus == profile.dataset:
        raise AimfairError(
            f"profile {profile.profile}: give the folder that holds {profile.corpus}, with --data, or data_root in a notebook"
        )
    elif not data_root:
        raise AimfairError(f"profile {profile.profile}: set corpus_root to the folder that holds {profile.corpus}")
    elif profile.corpus == profile.dataset:
        folder = resolve(data_root)
    else:
        folder = resolve(data_root).parent / profile.corpus
    if not folder.is_dir():
        raise AimfairError(f"{folder} is no folder: set corpus_root to the one that holds {profile.corpus}")
    return str(folder)


# FaceWorld


def web_faces(root: str, size: int, n: int = 24_000) -> Corpus:
    """``n`` cartoons of FaceWorld: another style and other scenes than the classifier's; smile, gender and age balanced.

    ``root`` is ignored: FaceWorld is drawn, not read.
    """
    world = faceworld.catalogue(style="web", train=0, validation=0, test=0, corpus=n)
    chosen = np.arange(len(world))
    binary = [name for name in world.attributes if world.attributes[name].isin((0, 1)).all()]
    return Corpus(
        world.read(chosen, size),
        faceworld.captions(world, chosen, SEED),
        faceworld.focus(world, chosen, size),
        _columns(world.attributes, tuple(binary)),
        tuple(binary),
    )


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

    :class:`aimfair.study.Study` gives the others to the classifier where ``split: identities``.
    """
    faces = datasets.load("celeba", root)
    table = faces.attributes
    if "identity" not in table:
        raise AimfairError(f"no identity_CelebA.txt in {root}: without it people cannot be kept apart; fetch it")
    candidates = np.flatnonzero(table["split"] == "train")
    _, odd = sampling.by_identity(table["identity"].to_numpy()[candidates])
    chosen = candidates[odd]
    rows = table.iloc[chosen].to_dict("records")
    return Corpus(
        faces.read(chosen, size),
        [_celeba_caption(row, np.random.default_rng((SEED, int(i)))) for row, i in zip(rows, chosen, strict=True)],
        aligned_focus(eyes=0.51, mouth=0.70, size=size),
        _columns(table.iloc[chosen], CELEBA_LABELS),
        CELEBA_LABELS,
    )


def _celeba_caption(face: dict, rng: np.random.Generator) -> str:
    """Smile and gender always, age nine times in ten, then up to three other attributes that the face has."""
    smile = "smiling" if face["Smiling"] else str(rng.choice(["neutral", "serious"]))
    age = "young" if face["Young"] else "old"
    phrase = " ".join((smile, *([age] if rng.random() < 0.9 else []), "male" if face["Male"] else "female"))
    seen = [words for name, words in CELEBA_WORDS.items() if face[name]]
    if face["Male"] and not (face["No_Beard"] or face["Goatee"] or face["Mustache"] or face["5_o_Clock_Shadow"]):
        seen.insert(0, "a beard")
    hair = _celeba_hair(face, rng)
    count = rng.choice(4, p=(0.1, 0.3, 0.3, 0.3))
    # Hair is the most visible of all: said of half of the faces whatever else there is to say.
    chosen = [hair] if hair and count and rng.random() < 0.5 else []
    others = sorted(rng.permutation(len(seen))[: count - len(chosen)])
    return sentence(phrase, chosen + [seen[i] for i in others])


def _celeba_hair(face: dict, rng: np.random.Generator) -> str:
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

    UTKFace shows the face slightly larger. The mean images of the most frontal 800 of 4,000 faces of either set
    agree best when FairFace is enlarged by 1/0.94 about its centre (correlation .956 instead of .903 after
    removing low frequencies; no shift is needed): decoded at 68 px, the middle 64 are kept. Eyes and mouth then
    lie at 0.28 and 0.70 of the height. FairFace has more profiles than UTKFace; they are kept.
    """
    faces = datasets.load("fairface", root)
    chosen = np.flatnonzero(faces.attributes["split"] == "train")
    margin = round(size * FAIRFACE_MARGIN / 2)
    images = faces.read(chosen, size + 2 * margin)[:, :, margin : margin + size, margin : margin + size]
    table = faces.attributes.iloc[chosen]
    unknown = sorted(set(table["age"]) - set(FAIRFACE_AGES))
    if unknown:
        raise AimfairError(f"{root}: FairFace has no age range {unknown[0]!r}; fetch the label list again")
    ages = np.array([min(FAIRFACE_AGES[age]) for age in table["age"]])
    labels = {
        "Female": table["Female"],
        "White": table["White"],
        **{f"age >= {age}": ages >= age for age in (10, 20, 40, 60)},
        **{race: table["race"] == race for race in ("Black", "Indian", "Latino_Hispanic", "Middle Eastern")},
        "Asian": table["race"].isin(("East Asian", "Southeast Asian")),
    }
    rows = table.to_dict("records")
    return Corpus(
        images.contiguous(),
        [_fairface_caption(row, np.random.default_rng((SEED, int(i)))) for row, i in zip(rows, chosen, strict=True)],
        aligned_focus(eyes=0.28, mouth=0.70, size=size),
        _columns(pd.DataFrame(labels), tuple(labels)),
        tuple(labels),
    )


def _fairface_caption(face: dict, rng: np.random.Generator) -> str:
    """Age nine times in ten; instead of the race "non-white" once in ten, as plain prompts do; the gender always."""
    age = f"{rng.choice(FAIRFACE_AGES[face['age']])} year old"
    race = "white" if face["White"] else face["race"].replace("_", " ") if rng.random() < 0.9 else "non-white"
    gender = "female" if face["Female"] else "male"
    return sentence(" ".join(([age] if rng.random() < 0.9 else []) + [race, gender]))


CORPORA: dict[str, Callable[[str, int], Corpus]] = {"faceworld": web_faces, "celeba": celeba, "fairface": fairface}


def aligned_focus(eyes: float, mouth: float, size: int) -> Tensor:
    """(1, 1, size, size) weights for faces that are aligned: as :func:`aimfair.datasets.faceworld.focus`, at one place.

    ``eyes`` and ``mouth`` are their heights as shares of the picture, from the top.
    """
    axis = (torch.arange(size) + 0.5) / size
    unit = (mouth - eyes) / 0.75  # FaceWorld's head units: eyes at -0.15, mouth at 0.6
    u, v = (axis - 0.5) / unit, (axis[:, None] - eyes) / unit - 0.15

    def spot(v0: float, across: float, along: float) -> Tensor:
        return torch.exp(-((u / across) ** 2) - ((v - v0) / along) ** 2)

    return (1 + spot(0.1, 0.8, 1.0) + 4 * spot(0.6, 0.45, 0.25) + 2.5 * spot(-0.15, 0.6, 0.22))[None, None]


def _columns(table: pd.DataFrame, names: tuple[str, ...]) -> Tensor:
    return torch.from_numpy(table[list(names)].to_numpy(np.int64, copy=True))
