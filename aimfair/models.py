"""The classifiers: one factory of backbones, residual networks and vision transformers, and one evaluation function.

Every backbone ends in a single logit z: probability ``sigmoid(z)``, prediction ``z >= 0``. Names of the
parameter tensors are torchvision's and timm's, because the mask of AIM-Fair is a set of such names.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from aimfair.environment import AimfairError, aside, reading
from aimfair.faces import Batches, FaceSet


class ResNet18(nn.Module):
    """ResNet-18 (He et al., CVPR 2016) with one logit and a chosen base width.

    Width 64 is torchvision's network: 62 named tensors, 11,177,025 scalars. A smaller width keeps all 62
    names and shapes' proportions, so that masks and sweeps mean the same, at a fraction of the cost.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._stage(width, width, stride=1)
        self.layer2 = self._stage(width, 2 * width, stride=2)
        self.layer3 = self._stage(2 * width, 4 * width, stride=2)
        self.layer4 = self._stage(4 * width, 8 * width, stride=2)
        self.fc = nn.Linear(8 * width, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(inside: int, outside: int, stride: int) -> nn.Sequential:
        shortcut = None
        if stride != 1:
            shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        return nn.Sequential(BasicBlock(inside, outside, stride, shortcut), BasicBlock(outside, outside))

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, 8 * width) penultimate features."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N,) logits."""
        return self.fc(self.features(x)).squeeze(-1)


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


@cache
def vit() -> type[nn.Module]:
    """The class of vision transformers (Dosovitskiy et al., ICLR 2021): timm's network and names of tensors, but one logit
    and ``features`` as a ResNet here. Its positional embedding fits images of one size. timm is imported when asked for."""
    from timm.models.vision_transformer import VisionTransformer

    class ViT(VisionTransformer):
        def features(self, x: Tensor) -> Tensor:
            """(N, 3, S, S) normalised images -> (N, width): the class token, or the mean over patches, normalised."""
            return self.forward_head(self.forward_features(x), pre_logits=True)

        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            """(N, 3, S, S) normalised images -> (N,) logits."""
            return self.head(self.features(x)).squeeze(-1)

    return ViT


def vit_s_32() -> nn.Module:
    """ViT-S/32 of Table 8, timm's ``vit_small_patch32_224``: 152 named tensors, 22,494,337 scalars, 224 px."""
    return vit()(img_size=224, patch_size=32, embed_dim=384, depth=12, num_heads=6, num_classes=1)


def vit_slim() -> nn.Module:
    """A ViT for 64 px that SGD can train from scratch on a few thousand faces: 91 named tensors, 818,137 scalars.

    A plain small ViT cannot be trained on so few. A convolutional stem, and the mean over the 16 patches in place of a class
    token, get it off the ground; the blocks are a ViT's. A face costs about twice the slim ResNet's. It needs many small
    steps: batches of 32 at a rate of .01, and three times the epochs of a ResNet.
    """
    return vit()(
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


BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet18(64),
    "resnet18-slim": lambda: ResNet18(16),
    "vit-s-32": vit_s_32,
    "vit-slim": vit_slim,
}
"""Constructors by name; each returns a module with ``features`` and one logit per image."""

IMAGE_SIZES = {"vit-s-32": 224, "vit-slim": 64}
"""The one image size in pixels of a backbone with a positional embedding; the others take any."""

VIT_S_32 = "vit_small_patch32_224.augreg_in21k_ft_in1k"
IMAGENET_FILES = {
    "resnet18": ("resnet18-f37072fd.safetensors", "resnet18-f37072fd.pth"),
    "vit-s-32": (f"{VIT_S_32}.safetensors",),
}
"""Names of the files with ImageNet weights, of torchvision (V1) and of timm."""


def halve(model: nn.Module) -> nn.Module:
    """Round all weights to half precision, in place, and go on in float32: what :func:`save` keeps is then exact."""
    return model.half().float()


def save(model: nn.Module, path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write weights in half precision as safetensors, at once or not at all; ``about`` goes into the header."""
    from safetensors.torch import save as serialise

    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    with aside(path) as partial:
        partial.write_bytes(serialise(tensors, dict(about) if about else None))


def head(model: nn.Module) -> str:
    """Name of the last layer, which turns features into the logit: "fc" of a ResNet, "head" of a ViT."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def build(backbone: str, seed: int, weights: str = "scratch") -> nn.Module:
    """A fresh classifier, its random weights a function of ``seed`` alone.

    weights  "scratch"; "imagenet": weights of torchvision (resnet18) or timm (vit-s-32), which must be on this machine
             (see :func:`imagenet_file`), the one-logit head drawn from the seed; or the path of a safetensors file
             with all tensors of the classifier.
    Raises AimfairError for an unknown backbone or weights that are not there or do not fit.
    """
    if backbone not in BACKBONES:
        raise AimfairError(f"no backbone {backbone!r}; there are: {', '.join(BACKBONES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BACKBONES[backbone]()
    if weights != "scratch":
        imagenet = weights == "imagenet"
        file = imagenet_file(backbone) if imagenet else Path(weights)
        own = {f"{head(model)}.weight", f"{head(model)}.bias"} if imagenet else set()
        state = {name: value for name, value in read_weights(file).items() if name not in own}
        try:
            found = model.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise AimfairError(f"{file} does not fit {backbone}: its tensors differ") from error
        wrong = {*found.missing_keys} - own or (set() if imagenet else {*found.unexpected_keys})
        if wrong:
            raise AimfairError(f"{file} does not fit {backbone}: {', '.join(sorted(wrong)[:3])} is in only one of them")
    return model.to(memory_format=torch.channels_last)


def imagenet_file(backbone: str = "resnet18") -> Path:
    """Where the ImageNet weights of a backbone lie on this machine; nothing is downloaded here.

    Looked for in torch's folder of checkpoints and, for the ViT, in the cache of the Hugging Face hub, where timm puts
    them. Raises AimfairError for a backbone that has none.
    """
    if backbone not in IMAGENET_FILES:
        raise AimfairError(f"ImageNet weights do not fit {backbone}: use backbone {' or '.join(IMAGENET_FILES)}")
    folder, names = Path(torch.hub.get_dir()) / "checkpoints", IMAGENET_FILES[backbone]
    places = [folder / name for name in names]
    if backbone == "vit-s-32":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(f"timm/{VIT_S_32}", "model.safetensors")
        places += [Path(cached)] if isinstance(cached, str) else []
    for place in places:
        if place.exists():
            return place
    source = "torchvision's model page" if backbone == "resnet18" else f"huggingface.co/timm/{VIT_S_32}"
    raise AimfairError(
        f"ImageNet weights are not on this machine: put {names[-1]} (from {source}) into {folder}, or choose weights: "
        "scratch"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file or a state dict. Raises AimfairError for anything else."""
    if not path.exists():
        raise AimfairError(f"no weights at {path}")
    with reading(path, "fetch it again, or save a state_dict of tensors as safetensors"):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)  # tensors only: nothing else is unpickled
        except pickle.UnpicklingError:
            raise ValueError("it holds more than tensors by name, or is no such file") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        inside = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise AimfairError(f"{path} holds no tensors by name but {inside[:100]}: save the state_dict in it by itself")
    return state


def as_input(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 in [0, 255] -> float32 in [-1, 1], the paper's normalisation (mean .5, std .5), channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(127.5).div_(127.5)


class Silent(nn.Module):
    """What a training leaves that diverged: it has no answer, and its logits are NaN."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B,) of NaN."""
        return torch.full((len(inputs),), torch.nan)


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """(B,) logits of a binary classifier or (B, K) of one with K classes, whether the model returns them as they are, as
    (B, 1), or as the ``logits`` of a larger output (transformers). Raises AimfairError for another shape."""
    output = model(inputs)
    output = getattr(output, "logits", output)
    if not torch.is_tensor(output) or output.ndim not in (1, 2) or len(output) != len(inputs):
        shape = tuple(output.shape) if torch.is_tensor(output) else type(output).__name__
        raise AimfairError(f"the model must return one logit or K logits per image: of {len(inputs)} it makes {shape}")
    return output.squeeze(1) if output.ndim == 2 and output.shape[1] == 1 else output


def decide(logits: Tensor) -> Tensor:
    """The class that the logits stand for, (N,) int64: 1 from 0 upwards, or the largest of K."""
    return (logits >= 0).long() if logits.ndim == 1 else logits.argmax(1)


@torch.inference_mode()
def evaluate(
    model: nn.Module, faces: FaceSet, device: str = "cpu", batch_size: int = 256, output: str = "logits"
) -> Tensor:
    """Logits (N,) or penultimate features (N, d) of all faces, float32 on the CPU, evaluation mode, whole image.

    The model's mode is put back afterwards. The labels of ``faces`` are not read.
    """
    images = (as_input(part.to(device)) for part in faces.images.split(batch_size)) if len(faces) else ()
    return _forward(model, images, device, output)


@torch.inference_mode()
def evaluate_batches(model: nn.Module, data: Batches, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Logits (N,) or (N, K), float32 on the CPU and in evaluation mode, and targets (N,) of a user's own batches."""
    targets: list[Tensor] = []

    def images() -> Iterator[Tensor]:
        for inputs, target in data:
            targets.append(target.cpu())
            yield inputs.to(device)

    return _forward(model, images(), device), torch.cat(targets)


def _forward(model: nn.Module, inputs: Iterable[Tensor], device: str, output: str = "logits") -> Tensor:
    was_training = model.training
    model.eval()
    parts = []
    for batch in inputs:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=torch.device(device).type == "cuda"):
            found = logits_of(model, batch) if output == "logits" else model.features(batch)  # type: ignore[operator]
        parts.append(found.float().cpu())
    model.train(was_training)
    return torch.cat(parts) if parts else torch.empty(0)
