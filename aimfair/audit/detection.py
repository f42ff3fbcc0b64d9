"""In how many pictures does a detector find a face? A check that knows nothing of labels, corpora and generators.

The detector is the cascade of Viola and Jones (CVPR 2001) that OpenCV 4 ships, for upright faces seen from the front. It
learnt from photographs, of nobody's corpus here, and is a coarse one: it misses some of FaceWorld's drawn faces, and finds
one now and then in a picture whose pieces have changed places. So the share means something beside that of real faces
only. It does not see whether a face is sharp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.progress import progress

SIDE = 128
"""Pixels at which a picture is looked at; a quarter more on each side repeats its edge, for faces that fill it."""

SMALLEST = 64
"""Pixels of the smallest face that counts: half the picture."""


def detector() -> Any:
    """OpenCV's cascade, or None where OpenCV 4 is not installed (``pip install 'aimfair[audit]'``)."""
    try:
        import cv2.data

        return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")
    except (ImportError, AttributeError):  # OpenCV 5 has no cascades any more
        return None


def detected(images: Tensor) -> Tensor | None:
    """(N, 3, H, W) uint8 -> (N,) bool, whether a face is found in each; None where no detector is installed."""
    cascade = detector()
    if cascade is None:
        return None
    margin = (SIDE // 4,) * 4
    found = []
    for image in progress(images, "looking for faces", len(images), "image"):
        grey = image.float().mean(0, keepdim=True)[None]
        grey = F.interpolate(grey, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
        framed = F.pad(grey, margin, mode="replicate")[0, 0].round().clamp(0, 255).numpy().astype(np.uint8)
        found.append(len(cascade.detectMultiScale(framed, 1.1, 3, minSize=(SMALLEST, SMALLEST))) > 0)
    return torch.tensor(found, dtype=torch.bool)
