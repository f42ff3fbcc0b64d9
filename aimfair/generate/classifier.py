"""A small classifier of attributes, trained on labelled faces.

The autoencoder of the tiny Stable Diffusion must keep its features; the audit asks it as a judge what a synthetic face
shows (:mod:`aimfair.audit.judges`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair.environment import AimfairError, reading
from aimfair.models import ResNet18, as_input, save
from aimfair.progress import progress


class Judge:
    """Says which of its ``attributes`` a face shows: a :class:`Classifier`, or :class:`aimfair.audit.judges.Clip`."""

    attributes: tuple[str, ...]

    def see(self, images: Tensor, batch_size: int = 512) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) uint8 -> (N, L) logits and (N, d) features, float32 on the CPU.

        An attribute is there where its logit is above 0.
        """
        raise NotImplementedError

    def logits(self, images: Tensor, batch_size: int = 512) -> Tensor:
        """The logits of :meth:`see`."""
        return self.see(images, batch_size)[0]

    def column(self, attribute: str) -> int:
        """Which logit belongs to ``attribute``. Raises AimfairError if the judge does not know it."""
        if attribute not in self.attributes:
            raise AimfairError(f"the judge knows no {attribute!r}, only {', '.join(self.attributes)}")
        return self.attributes.index(attribute)


@dataclass(frozen=True)
class Classifier(Judge):
    """A slim ResNet-18 with one logit for each of ``attributes``; images are resized to ``size`` pixels."""

    model: ResNet18
    attributes: tuple[str, ...]
    size: int = 64

    def see(self, images: Tensor, batch_size: int = 512) -> tuple[Tensor, Tensor]:
        """As :meth:`Judge.see`; the features are the penultimate ones."""
        device = self.model.conv1.weight.device
        logits, features = [], []
        with torch.inference_mode():
            for batch in images.split(batch_size):
                if batch.shape[-2:] != (self.size, self.size):
                    small = F.interpolate(batch.float(), (self.size, self.size), mode="bilinear", antialias=True)
                    batch = small.round().clamp(0, 255).to(torch.uint8)
                seen = self.model.features(as_input(batch.to(device)))
                logits.append(self.model.fc(seen).float().cpu())
                features.append(seen.float().cpu())
        return torch.cat(logits), torch.cat(features)

    def save(self, path: Path) -> None:
        """Weights (float16), attribute names and size in one safetensors file."""
        save(self.model, path, {"attributes": ",".join(self.attributes), "size": str(self.size)})


def load_classifier(path: Path, device: str = "cpu") -> Classifier:
    """A classifier that :meth:`Classifier.save` wrote. Raises AimfairError where there is none, or a file that is none."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    if not path.exists():
        raise AimfairError(f"no classifier at {path}: train one with aimfair.generate.classifier.train_classifier")
    with reading(path, "fetch it again, or delete it where it was trained here"):
        with safe_open(path, "pt") as file:
            about = file.metadata()
        attributes = tuple(about["attributes"].split(","))
        model = _network(len(attributes), seed=0)
        model.load_state_dict(load_file(path))
    return Classifier(model.to(device).eval(), attributes, int(about.get("size", 64)))


def train_classifier(
    images: Tensor,
    labels: Tensor,
    attributes: Sequence[str] = (),
    *,
    epochs: int = 8,
    lr: float = 3e-3,
    batch_size: int = 128,
    seed: int = 0,
    device: str = "cpu",
) -> Classifier:
    """Train a classifier on (N, 3, H, W) uint8 images with (N, L) labels of {0, 1}.

    AdamW with one cycle of the learning rate; the images of a batch are mirrored or not and shifted by up to 4 pixels, all
    alike. The same seed gives the same weights. Raises AimfairError for labels of another shape.
    """
    names = tuple(attributes) or tuple(f"attribute {i}" for i in range(labels.shape[1]))
    if labels.shape != (len(images), len(names)):
        raise AimfairError(f"{len(images)} images and {len(names)} attributes, but labels of {tuple(labels.shape)}")
    generator = torch.Generator().manual_seed(seed)
    model = _network(len(names), seed).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.02)
    steps = epochs * -(-len(images) // batch_size)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.2)
    batches = (b for _ in range(epochs) for b in torch.randperm(len(images), generator=generator).split(batch_size))
    for index in progress(batches, "judge", steps, "step"):
        x = as_input(images[index].to(device))
        if torch.rand((), generator=generator) < 0.5:
            x = x.flip(3)
        dx, dy = torch.randint(-4, 5, (2,), generator=generator).tolist()
        padded = F.pad(x, (4, 4, 4, 4), mode="replicate")
        x = padded[:, :, 4 + dy : 4 + dy + x.shape[2], 4 + dx : 4 + dx + x.shape[3]]
        with autocast(device):
            logits = model.fc(model.features(x))
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels[index].to(device, torch.float32))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        cycle.step()
    return Classifier(model.eval(), names, images.shape[-1])


def autocast(device: str) -> torch.autocast:
    """bfloat16 where the processor computes in it, float32 elsewhere."""
    kind = torch.device(device).type
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = kind == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)
    return torch.autocast(kind, torch.bfloat16, enabled=native or kind == "cuda")


def _network(attributes: int, seed: int) -> ResNet18:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet18(16)
        model.fc = nn.Linear(model.fc.in_features, attributes)
    return model.to(memory_format=torch.channels_last)
