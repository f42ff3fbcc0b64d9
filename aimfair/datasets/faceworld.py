"""FaceWorld: parametric faces with CelebA's attributes, drawn when they are read; nothing to download.

One world in two styles of the same scenes. ``real`` looks like photographs and is what classifiers are
trained and tested on; ``web`` looks like cartoons and is the captioned corpus of the tiny diffusion model.
The two stand apart as real photographs and generated images do: the domain gap is genuine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aimfair.datasets import Catalogue
from aimfair.datasets._faceworld_draw import draw
from aimfair.datasets._faceworld_scene import CAPACITY, SPLITS, attributes, scenes
from aimfair.environment import AimfairError

STYLES = ("real", "web")
LABELS = ("Smiling", "Male", "Young")


def catalogue(
    root: str | None = None,
    style: str = "real",
    seed: int = 0,
    train: int = 40_000,
    validation: int = 4_000,
    test: int = 8_000,
    corpus: int = 24_000,
    do: Mapping[str, int] | None = None,
) -> Catalogue:
    """All faces of one world: ``train``, ``validation``, ``test`` and ``corpus`` faces, in that order.

    root  ignored: FaceWorld is drawn, not read
    seed  another seed is another world; with one seed, both styles show the same scenes
    do    labels set against their draw: ``{"Smiling": 1}`` shows every face as it would be if it smiled. What does
          not follow from the label stays; a beard, say, follows from Male

    In the first three splits the attributes are distributed as in CelebA. In the corpus Smiling, Male and
    Young are balanced and independent, and every face clearly shows what its labels say. A face depends on
    its seed, split and number only, not on how many faces there are or which are read together; its name,
    such as "web-3000017", holds its split in the millions.

    Raises AimfairError for an unknown style, for ``do`` of anything but 0 or 1 for Smiling, Male or Young, and for
    more than a million faces in a split.
    """
    if style not in STYLES:
        raise AimfairError(f"FaceWorld has no style {style!r}: choose one of {', '.join(STYLES)}")
    set_labels = dict(do or {})
    if any(label not in LABELS or value not in (0, 1) for label, value in set_labels.items()):
        raise AimfairError(f"do is {set_labels}: FaceWorld can set {', '.join(LABELS)}, each to 0 or 1")
    counts = dict(zip(SPLITS, (train, validation, test, corpus), strict=True))
    given = {label.lower(): value for label, value in set_labels.items()}
    parts = {split: scenes(seed, split, n, given) for split, n in counts.items()}
    scene = {key: np.concatenate([part[key] for part in parts.values()]) for key in parts["train"]}
    numbers = np.concatenate([np.arange(n) + CAPACITY * i for i, n in enumerate(counts.values())])
    table = attributes(scene)
    table["split"] = np.repeat(SPLITS, list(counts.values()))

    def read(indices: np.ndarray, size: int) -> Tensor:
        return draw({key: value[indices] for key, value in scene.items()}, style, size)

    had = "".join(f"-{label}={value}" for label, value in set_labels.items())  # another picture, another name
    return Catalogue("faceworld", np.array([f"{style}-{n:07d}{had}" for n in numbers]), table, read)


def captions(faces: Catalogue, indices: Sequence[int] | np.ndarray, seed: int) -> list[str]:
    """One true sentence for each face at ``indices``, in the manner of the paper's prompts.

    Smile and gender are always named, age nine times in ten, then up to three of the other attributes, drawn
    at random, and last the pose of the head. The draw depends on ``seed`` and the face's index only.
    """
    table = _table(faces)
    return [_caption(row, np.random.default_rng((seed, int(i)))) for i, row in _rows(table, indices)]


def _rows(table: pd.DataFrame, indices: Sequence[int] | np.ndarray) -> list[tuple[int, dict]]:
    index = np.asarray(indices, dtype=np.int64)
    return list(zip(index.tolist(), table.iloc[index].to_dict("records"), strict=True))


def _caption(face: dict, rng: np.random.Generator) -> str:
    smile = "smiling" if face["Smiling"] else str(rng.choice(["neutral", "serious"]))
    age = "young" if face["Young"] else "old"
    who = [smile, *([age] if rng.random() < 0.9 else []), "male" if face["Male"] else "female"]
    known = _features(face)
    chosen = sorted(rng.permutation(len(known))[: rng.choice(4, p=(0.15, 0.35, 0.3, 0.2))])
    clauses = [known[i] for i in chosen] + [str(rng.choice(_poses(face)))]
    listed = clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + (", and " if len(clauses) > 2 else " and ")
    listed += clauses[-1] if len(clauses) > 1 else ""
    return f"Portrait face photo of a {' '.join(who)} with {listed}."


def _features(face: dict) -> list[str]:
    """What can be said of a face besides its groups, most visible first."""
    tone = next((t for t in ("Black", "Brown", "Blond", "Red", "Gray") if face[f"{t}_Hair"]), "")
    length = "long" if face["Long_Hair"] else "short"
    hair = "a bald head" if face["Bald"] else f"{length}{' curly' if face['Curly_Hair'] else ''} {tone.lower()} hair"
    named = {
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
    covered = {"Bangs"} if face["Wearing_Hat"] else {"Mustache"} if face["Full_Beard"] else set()
    seen = [words for name, words in named.items() if face[name] and name not in covered]
    bald_under_hat = face["Bald"] and face["Wearing_Hat"]
    skin = ["dark skin"] if face["Dark_Skin"] else []
    return ([] if bald_under_hat else [hair]) + seen + skin


def _poses(face: dict) -> list[str]:
    """Every pose clause that is true of a face."""
    poses = []
    if abs(face["yaw"]) > 0.3:
        poses.append(f"head turned slightly {'right' if face['yaw'] > 0 else 'left'}")
    if abs(face["roll"]) > 5:
        poses.append(f"head tilted slightly {'right' if face['roll'] > 0 else 'left'}")
    if abs(face["pitch"]) > 0.4:
        poses.append(f"head tilted slightly {'downward' if face['pitch'] > 0 else 'upward'}")
    return poses or ["head facing the camera"]


def focus(faces: Catalogue, indices: Sequence[int] | np.ndarray, size: int) -> Tensor:
    """(n, 1, size, size) float32 weights: 1 on the background, about 2 on the face, up to 6 on eyes and mouth.

    An autoencoder whose loss is weighted so spends its few latents where the labels are.
    """
    table = _table(faces).iloc[np.asarray(indices, dtype=np.int64)]
    place = {
        name: torch.from_numpy(np.array(table[name], np.float32)).view(-1, 1, 1, 1)
        for name in ("head_x", "head_y", "head_scale", "roll", "yaw", "pitch")
    }
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    dx, dy = (axis - place["head_x"]) / place["head_scale"], (axis[:, None] - place["head_y"]) / place["head_scale"]
    angle = torch.deg2rad(place["roll"])
    u = dx * angle.cos() + dy * angle.sin() - 0.2 * place["yaw"]
    v = dy * angle.cos() - dx * angle.sin() - 0.07 * place["pitch"]

    def spot(v0: float, across: float, along: float) -> Tensor:
        return torch.exp(-((u / across) ** 2) - ((v - v0) / along) ** 2)

    return 1 + spot(0.1, 0.8, 1.0) + 4 * spot(0.6, 0.45, 0.25) + 2.5 * spot(-0.15, 0.6, 0.22)


def _table(faces: Catalogue) -> pd.DataFrame:
    if "head_scale" not in faces.attributes:
        raise AimfairError(f"{faces.name} does not know where its faces are: captions and focus want faceworld")
    return faces.attributes
