"""FaceWorld: parametric faces with CelebA's attributes, drawn when they are read; nothing to download.

One world in two styles of the same scenes. ``real`` looks like photographs and is what classifiers are
trained and tested on; ``web`` looks like cartoons and is the captioned corpus of the tiny diffusion model.
The two stand apart as real photographs and generated images do: the domain gap is genuine.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
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
