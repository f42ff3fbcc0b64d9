"""Random resized crop and flip for a whole batch at once, on the batch's own device.

Cropping and resizing with bilinear interpolation is linear and separable: every output row is a weighted
sum of two input rows, every output column of two input columns. So a crop is two small matrices,
``rows @ image @ columns``, and a batch of crops two batched matrix products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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


def _weights(start: Tensor, length: Tensor, size: int) -> Tensor:
    """(n, size, size) bilinear weights: output pixel i of n crops reads input pixels j of an axis of ``size``."""
    pixels = torch.arange(size, device=start.device, dtype=torch.float32)
    position = (start[:, None] + length[:, None] * (pixels + 0.5) / size) * size - 0.5
    return (1 - (position.clamp(0, size - 1)[:, :, None] - pixels).abs()).clamp_(min=0)


def augment(images: Tensor, generator: torch.Generator, scale: tuple[float, float]) -> Tensor:
    """Random resized crop (area in ``scale``, back to the same size) and horizontal flip with probability .5.

    images (n, 3, s, s) uint8 -> (n, 3, s, s) float32 in [-1, 1], channels last. ``scale`` (.08, 1) is the
    official transform; at 64 px a milder one keeps the mouth in the picture.
    """
    n, _, size, _ = images.shape
    crops = random_crops(n, generator, scale).to(images.device)
    flip = (torch.rand(n, generator=generator) < 0.5).to(images.device)
    left = torch.where(flip, crops[:, 1] + crops[:, 3], crops[:, 1])  # a flip reads the crop from right to left
    columns = _weights(left, torch.where(flip, -crops[:, 3], crops[:, 3]), size).transpose(1, 2)
    rows = _weights(crops[:, 0], crops[:, 2], size)
    # Memory order (n, height, channel, width) makes both products plain batched matrix products without copies.
    pixels = images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format).sub_(127.5).div_(127.5)
    pixels = torch.bmm(pixels.view(n, 3 * size, size), columns).view(n, size, 3 * size)
    pixels = torch.bmm(rows, pixels).view(n, size, 3, size)
    return pixels.transpose(1, 2).contiguous(memory_format=torch.channels_last)
