"""Vision transformers (Dosovitskiy et al., ICLR 2021): timm's network, with one logit and ``features`` as a ResNet here."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class ViT(VisionTransformer):
    """timm's network and names of tensors. Its positional embedding fits images of one size."""

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) normalised images -> (N, width): the class token, or the mean over patches, normalised."""
        return self.forward_head(self.forward_features(x), pre_logits=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(N, 3, S, S) normalised images -> (N,) logits."""
        return self.head(self.features(x)).squeeze(-1)


class ConvStem(nn.Sequential):
    """Patches of 16 px embedded by four strided convolutions (Xiao et al., NeurIPS 2021) in place of one large one.

    A drop-in for timm's ``PatchEmbed``. No batch norm: group norm with one group is layer norm for a convolution.
    """

    def __init__(self, img_size: int, embed_dim: int, **_: Any) -> None:
        widths = [3, embed_dim // 4, embed_dim // 2, embed_dim, embed_dim]
        layers: dict[str, nn.Module] = {}
        for i, (inside, outside) in enumerate(pairwise(widths), 1):
            layers[f"conv{i}"] = nn.Conv2d(inside, outside, 3, 2, 1, bias=False)
            layers |= {f"norm{i}": nn.GroupNorm(1, outside), f"relu{i}": nn.ReLU()}
        layers |= {"proj": nn.Conv2d(embed_dim, embed_dim, 1), "flatten": nn.Flatten(2)}
        super().__init__(OrderedDict(layers))
        self.num_patches = (img_size // 16) ** 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, patches, width)."""
        return super().forward(x).transpose(1, 2)


def vit_s_32() -> ViT:
    """ViT-S/32 of Table 8, timm's ``vit_small_patch32_224``: 152 named tensors, 22,494,337 scalars, 224 px."""
    return ViT(img_size=224, patch_size=32, embed_dim=384, depth=12, num_heads=6, num_classes=1)


def vit_slim() -> ViT:
    """A ViT for 64 px that SGD can train from scratch on a few thousand faces: 91 named tensors, 818,137 scalars.

    The plain one in small cannot: after fifteen epochs on 1,500 FaceWorld faces it still guessed. A convolutional stem
    and the mean over the 16 patches in place of a class token get it off the ground; the blocks are a ViT's. A face
    costs about twice the slim ResNet's. Steps are what it lacks: on 4,000 biased FaceWorld faces, one seed and fifteen
    epochs, batches of 32 at a rate of .01 reach 70 % on validation faces, batches of 128 at .03 reach 66 (at .1 it learns
    nothing), AdamW with batches of 64 at .001 reaches 62, and the slim ResNet 87 to 89. Three times the epochs with the
    first take it to 90 % of the test faces, mean of three seeds. So it is trained.
    """
    return ViT(
        img_size=64,
        patch_size=16,
        embed_dim=96,
        depth=6,
        num_heads=3,
        num_classes=1,
        class_token=False,
        global_pool="avg",
        embed_layer=ConvStem,
    )
