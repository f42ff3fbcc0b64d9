"""Random resized crop and flip for a whole batch at once, on the batch's own device.

Cropping and resizing with bilinear interpolation is linear and separable: every output row is a weighted sum of two
input rows, every output column of two input columns. An embedding bag computes such sums: the rows of all images are
its table, and each output row looks up two of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_crops(
    n: int, generator: torch.Generator, scale: tuple[float, float], ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> Tensor:
    """Draw n crops (n, 4): top, left, height, width as fractions of the image, as RandomResizedCrop does.

    Area uniform in ``scale``, log aspect uniform in ``ratio``; the first of ten draws that fits is taken,
    else the whole image. The generator lives on the CPU, so every device sees the same crops.
    """
    area = torch.empty(n, 10).uniform_(*scale, generator=generator)
    aspect = torch.empty(n, 10).uniform_(math.log(ratio[0]), math.log(ratio[1]), generator=generator).exp()
    width, height = (area * aspect).sqrt(), (area / aspect).sqrt()
    fits = (width <= 1) & (height <= 1)
    first = fits.int().argmax(1, keepdim=True)
    width, height = width.gather(1, first).squeeze(1), height.gather(1, first).squeeze(1)
    none = ~fits.any(1)
    width[none], height[none] = 1.0, 1.0
    corner = torch.rand(n, 2, generator=generator)
    return torch.stack([corner[:, 0] * (1 - height), corner[:, 1] * (1 - width), height, width], 1)


def _resample(planes: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """(n, c, size, width) -> the same shape: along the axis of ``size``, the stretch of each of n images that begins at
    ``start`` and has ``length`` (shares of the axis, a negative length reads backwards) resized to the whole axis."""
    n, channels, size, width = planes.shape
    pixels = torch.arange(size, device=planes.device, dtype=torch.float32)
    position = ((start[:, None] + length[:, None] * (pixels + 0.5) / size) * size - 0.5).clamp_(0, size - 1)
    first = position.floor().clamp_(max=size - 2)
    plane = torch.arange(0, n * channels * size, size, device=planes.device).view(n, channels, 1)
    place = first.long()[:, None] + plane
    weight = torch.stack([1 - (position - first), position - first], -1)[:, None].expand(n, channels, size, 2)
    two, table = torch.stack([place, place + 1], -1), planes.reshape(-1, width)
    lines = F.embedding_bag(two.view(-1, 2), table, per_sample_weights=weight.reshape(-1, 2), mode="sum")
    return lines.view_as(planes)


def augment(images: Tensor, generator: torch.Generator, scale: tuple[float, float]) -> Tensor:
    """Random resized crop (area in ``scale``, back to the same size) and horizontal flip with probability .5.

    images (n, 3, s, s) uint8 -> (n, 3, s, s) float32 in [-1, 1], channels last. ``scale`` (.08, 1) is the official
    transform; at 64 px a milder one keeps the mouth in the picture.
    """
    crops = random_crops(len(images), generator, scale).to(images.device)
    flip = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    left = torch.where(flip, crops[:, 1] + crops[:, 3], crops[:, 1])  # a flip reads the crop from right to left
    width = torch.where(flip, -crops[:, 3], crops[:, 3])
    pixels = images.transpose(2, 3).to(torch.float32, memory_format=torch.contiguous_format).sub_(127.5).div_(127.5)
    pixels = _resample(pixels, left, width).transpose(2, 3).contiguous()  # columns were lines, now rows are
    return _resample(pixels, crops[:, 0], crops[:, 2]).contiguous(memory_format=torch.channels_last)
