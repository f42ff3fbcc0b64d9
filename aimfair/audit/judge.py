"""Do the images show what the prompt asked for? An independent classifier is the judge.

The label of a synthetic face is what its prompt asked for, which is not always what was drawn. A judge
trained on labelled faces that the generator never saw measures how often the two agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aimfair.environment import AimfairError
from aimfair.faces import GROUPS, FaceSet
from aimfair.generate.stages import autocast
from aimfair.models import ResNet18, as_input, save
from aimfair.progress import progress

if TYPE_CHECKING:
    pass

JUDGED = ("Smiling", "Male", "Young")
"""The attributes that FaceWorld's tasks are about."""


@dataclass(frozen=True)
class Judge:
    """A slim ResNet-18 with one logit for each of ``attributes``, that looks at pictures of ``size`` pixels."""

    model: ResNet18
    attributes: tuple[str, ...]
    size: int = 64

    def see(self, images: Tensor, batch_size: int = 512) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) uint8 -> (N, L) logits, the attribute is there where its logit is above 0, and (N, d) features.

        Both float32 on the CPU. Pictures of another size are resized.
        """
        device = self.model.conv1.weight.device
        logits, features = [], []
        with torch.inference_mode():
            for batch in images.split(batch_size):
                seen = self.model.features(as_input(_resized(batch, self.size).to(device)))
                logits.append(self.model.fc(seen).float().cpu())
                features.append(seen.float().cpu())
        return torch.cat(logits), torch.cat(features)

    def logits(self, images: Tensor, batch_size: int = 512) -> Tensor:
        """The logits of :meth:`see`."""
        return self.see(images, batch_size)[0]

    def column(self, attribute: str) -> int:
        """Which logit belongs to ``attribute``. Raises AimfairError if the judge does not know it."""
        if attribute not in self.attributes:
            raise AimfairError(f"the judge knows no {attribute!r}, only {', '.join(self.attributes)}")
        return self.attributes.index(attribute)

    def save(self, path: Path) -> None:
        """Weights (float16), attribute names and size in one safetensors file."""
        save(self.model, path, {"attributes": ",".join(self.attributes), "size": str(self.size)})


def load_judge(path: Path, device: str = "cpu") -> Judge:
    """A judge that :meth:`Judge.save` wrote."""
    from safetensors import safe_open

    if not path.exists():
        raise AimfairError(f"no judge at {path}: train one with aimfair.audit.judge.train_judge")
    with safe_open(path, "pt") as file:
        about = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    attributes = tuple(about["attributes"].split(","))
    model = _network(len(attributes), seed=0)
    model.load_state_dict(state)
    return Judge(model.to(device).eval(), attributes, int(about.get("size", 64)))


def train_judge(
    images: Tensor,
    labels: Tensor,
    attributes: Sequence[str] = (),
    *,
    epochs: int = 8,
    lr: float = 3e-3,
    batch_size: int = 128,
    seed: int = 0,
    device: str = "cpu",
) -> Judge:
    """Train a judge on (N, 3, H, W) uint8 images with (N, L) labels of {0, 1}.

    AdamW with one cycle of the learning rate; images are mirrored and shifted by up to 4 pixels. The same seed gives
    the same judge.
    """
    names = tuple(attributes) or tuple(f"attribute {i}" for i in range(labels.shape[1]))
    if labels.shape != (len(images), len(names)):
        raise AimfairError(
            f"{len(images)} images and {len(names)} attributes, but labels of shape {tuple(labels.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    model = _network(len(names), seed).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.02)
    per_epoch = -(-len(images) // batch_size)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=epochs * per_epoch, pct_start=0.2)
    batches = (b for _ in range(epochs) for b in torch.randperm(len(images), generator=generator).split(batch_size))
    for index in progress(batches, "judge", epochs * per_epoch, "step"):
        x = as_input(images[index].to(device))
        if torch.rand((), generator=generator) < 0.5:
            x = x.flip(3)
        dx, dy = torch.randint(-4, 5, (2,), generator=generator).tolist()
        x = F.pad(x, (4, 4, 4, 4), mode="replicate")[:, :, 4 + dy : 4 + dy + x.shape[2], 4 + dx : 4 + dx + x.shape[3]]
        with autocast(device):
            z = outputs(model, x)
        loss = F.binary_cross_entropy_with_logits(z.float(), labels[index].to(device, torch.float32))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        cycle.step()
    return Judge(model.eval(), names, images.shape[-1])


def train_faceworld_judge(
    style: str = "web",
    world: int = 7,
    images: int = 20_000,
    seed: int = 0,
    attributes: Sequence[str] = JUDGED,
    epochs: int = 12,
) -> Judge:
    """The judge of the book's synthetic faces: knows FaceWorld's looks, from another world than the generator's corpus."""
    from aimfair.datasets import faceworld

    fresh = faceworld.catalogue(style=style, seed=world, train=0, validation=0, test=0, corpus=images)
    labels = torch.from_numpy(fresh.attributes[list(attributes)].to_numpy(np.int64, copy=True))
    return train_judge(fresh.read(np.arange(images), 64), labels, attributes, epochs=epochs, seed=seed)


def agreement(judge: Judge, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of (N, 3, H, W) images, in per cent, on which the judge sees what (N, L) ``labels`` say, per attribute."""
    right = (judge.logits(images) >= 0) == labels.bool()
    return dict(zip(judge.attributes, (100 * right.double().mean(0)).tolist(), strict=True))


def audit(judge: Judge, faces: FaceSet, names: Mapping[str, str]) -> pd.DataFrame:
    """One row per group: how many faces, and in how many per cent of them each label is what the judge sees.

    names  attribute behind each label, ``{"target": "Smiling", "protected": "Male"}``
    """
    seen = judge.logits(faces.images) >= 0
    rows = []
    for group, (target, protected) in enumerate(GROUPS):
        member = faces.groups == group
        row: dict[str, float] = {"target": target, "protected": protected, "faces": int(member.sum())}
        for label, attribute in names.items():
            wanted = getattr(faces, label)[member].bool()
            agree = (seen[member, judge.column(attribute)] == wanted).double()
            row[attribute] = 100 * float(agree.mean()) if len(agree) else float(np.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def certainty(judge: Judge, logits: Tensor, faces: FaceSet, names: Mapping[str, str]) -> Tensor:
    """(N, K) probability, by (N, L) ``logits`` of ``judge``, that each of the K labels in ``names`` is what is shown."""
    columns = []
    for label, attribute in names.items():
        value = logits[:, judge.column(attribute)].sigmoid()
        columns.append(torch.where(getattr(faces, label).bool(), value, 1 - value))
    return torch.stack(columns, 1)


def _resized(images: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) uint8 at ``size`` x ``size`` pixels."""
    if images.shape[-2:] == (size, size):
        return images
    small = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.round().clamp(0, 255).to(torch.uint8)


def _network(attributes: int, seed: int) -> ResNet18:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet18(16)
        model.fc = nn.Linear(model.fc.in_features, attributes)
    return model.to(memory_format=torch.channels_last)


def outputs(model: ResNet18, x: Tensor) -> Tensor:
    """(N, 3, H, W) normalised images -> (N, L) logits."""
    return model.fc(model.features(x))
