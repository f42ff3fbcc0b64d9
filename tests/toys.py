"""Toy faces that a classifier can learn in a second."""

import numpy as np
import torch

from aimfair.faces import FaceSet


def toy_faces(counts=(8, 8, 8, 8), seed=0, size=32):
    """Noise with two cues: a bright bar in the lower half for target 1, a red tint for protected 1."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(4).repeat_interleave(torch.tensor(counts))
    target, protected = group // 2, group % 2
    images = torch.randint(0, 120, (len(group), 3, size, size), generator=generator)
    images[target == 1, :, size // 2 : size // 2 + 6, 6:-6] += 100
    images[protected == 1, 0] += 90
    order = torch.randperm(len(group), generator=generator)
    images = images.clamp(0, 255).to(torch.uint8)[order]
    names = np.array([f"toy-{seed}-{i:05d}" for i in range(len(group))])
    return FaceSet(images, target[order], protected[order], names)
