"""Repair a classifier of files on disk: photographs, a table of labels, a folder of synthetic images, weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from aimfair.augment import augment
from aimfair.datasets import _images
from aimfair.environment import AimfairError, choose_device
from aimfair.faces import Batches
from aimfair.models import as_input, decide, evaluate_batches
from aimfair.practice import report
from aimfair.practice.evaluation import as_classes, order_classes, read_table
from aimfair.practice.export import make_classifier, write_onnx, write_safetensors
from aimfair.practice.synthetic import (
    biased_shares,
    draw_sets,
    draw_synthetic,
    look_at,
    read_prompts,
    read_synthetic,
)
from aimfair.repairing import repair
from aimfair.training import Schedule, batches, cross_entropy, fit

FILE_COLUMNS = ("path", "image", "file", "filename", "file_name", "name")
"""Where a table of labels names the images, in this order of preference; else its first column does."""

PARTS = ("train", "validation", "test")
WRITTEN = ("model.safetensors", "model.onnx", "report.html", "card.md", "predictions.csv")


@dataclass(frozen=True)
class Job:
    """What to repair, with what, and how.

    images, labels  a folder or zip file, and a table with a line per image. A column ``split`` says train, validation or
               test; without one a tenth is held out for validation and a fifth for the test, by ``seed``
    target     column of the classes; they are the model's outputs in order (numbers by value, other names by alphabet)
    protected  columns of which the test images are reported by; they may be missing altogether
    model, weights  see :func:`aimfair.practice.export.make_classifier`; without weights the biased model is trained first
    synthetic  a folder of ``{class}_{group}/`` folders of images; or None, and ``generator`` draws ``per_group`` images for
               each of the ``prompts`` into ``out/faces``, see :func:`aimfair.practice.synthetic.draw_synthetic`
    ratio      minority to majority that is assumed of the real images, where no protected column says it
    """

    images: Path
    labels: Path
    target: str
    model: str
    out: Path
    synthetic: Path | None = None
    generator: str = ""
    prompts: Path | None = None
    per_group: int = 2500
    steps: int = 0
    guidance: float = 0.0
    weights: Path | None = None
    protected: tuple[str, ...] = ()
    size: int | None = None
    ratio: float = 1 / 9
    batchnorm: str = "train"
    lr: tuple[float, ...] = (0.01,)
    epochs: int = 15
    pretrain_epochs: int = 15
    batch_size: int = 128
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Photos:
    """Images (N, 3, S, S) uint8 and targets (N,) in batches as a model expects them: whole, or for training in random order,
    cropped and mirrored."""

    images: Tensor
    target: Tensor
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int
    training: bool = False

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        everything = torch.arange(len(self.target)).split(self.batch_size)
        shuffled = batches(torch.randperm(len(self.target), generator=generator), self.batch_size)
        for index in shuffled if self.training else everything:
            drawn = self.images[index]
            inputs = augment(drawn, generator, Schedule.crop_scale) if self.training else as_input(drawn)
            yield (inputs / 2 + 0.5 - mean) / std, self.target[index]

    def take(self, index: np.ndarray, training: bool = False) -> Photos:
        """Those at ``index``."""
        places = torch.from_numpy(index)
        return replace(self, images=self.images[places], target=self.target[places], training=training)


def run(job: Job) -> str:
    """Do all of it, write the files of :data:`WRITTEN` into ``job.out`` and say what is there.

    A job that was stopped goes on from its last checkpoint; one that is finished is only told of. Raises AimfairError, in
    one line, for files that do not fit together, and where ``job.out`` holds another job.
    """
    settings = json.dumps(asdict(job) | {"out": None, "device": None}, default=str, indent=1)
    settings_file = job.out / "settings.json"
    if settings_file.exists() and settings_file.read_text() != settings:
        raise AimfairError(f"{job.out} holds a repair with other settings: name another folder with --out")
    if (job.out / "report.html").exists():
        return f"The repair is done. {_there(job.out)}"
    device = choose_device(job.device)
    table, catalogue, classes, notes = read_photos(job)
    made = make_classifier(job.model, len(classes), job.weights, job.seed)
    size = job.size or made.size
    notes.append(
        f"Images of {size} px, channels normalised by mean {made.mean} and deviation {made.std}: the model's own?"
    )
    drawn, groups = read_synthetic(job.synthetic or draw_faces(job, classes, size, device), classes, size)
    job.out.mkdir(parents=True, exist_ok=True)
    settings_file.write_text(settings)
    how: dict[str, Any] = {"mean": made.mean, "std": made.std, "batch_size": job.batch_size}
    photos = Photos(catalogue.read(np.arange(len(table)), size), _targets(table["class"], classes), **how)
    faces = Photos(drawn, _targets(groups["class"], classes), **how)
    rows = {part: np.flatnonzero(table["split"] == part) for part in PARTS}
    train, held, test = (photos.take(rows[part], training=part == "train") for part in PARTS)

    def answer(model: nn.Module, images: Photos) -> Tensor:
        return evaluate_batches(model.to(device), Batches(images, "images", len(classes)), device)[0]

    if job.weights is None:
        train_biased(made.model, train, held, job, len(classes), device)
    before = answer(made.model, test)
    right = (decide(answer(made.model, faces)) == faces.target).numpy()
    by_group = groups.assign(right=100.0 * right).groupby(["class", "group"], as_index=False)["right"]
    seen = by_group.agg(images="size", accuracy="mean")
    shares, said = biased_shares(table[table["split"] == "train"], seen, job.protected, job.ratio)
    notes.append(said)
    biased, balanced = draw_sets(groups, shares, job.seed)
    repaired = repair(
        made.model,
        train,
        faces.take(biased, training=True),
        faces.take(balanced, training=True),
        held,
        lr=job.lr,
        epochs=job.epochs,
        batchnorm=job.batchnorm,
        seed=job.seed,
        device=device,
        resume=job.out / "repair.half.safetensors",
    )
    notes.append(f"{len(biased):,} biased and {len(balanced):,} balanced synthetic images")
    tested = predictions(table.iloc[rows["test"]], classes, before, answer(repaired.model, test))
    tested.to_csv(job.out / "predictions.csv", index=False)
    write_safetensors(
        repaired.model, job.out / "model.safetensors", {"model": job.model, "classes": json.dumps(classes)}
    )
    example, _ = next(iter(replace(test, batch_size=8)))
    notes.append(write_onnx(repaired.model, example, job.out / "model.onnx"))
    seen = look_at(drawn, groups, train.images).merge(seen, how="left", on=["class", "group"])
    parts = list(report.repair_parts(tested, job.protected, classes, repaired, seen, notes))
    report.write_card(job.out / "card.md", job.model, parts, tested)
    report.write_page(job.out / "report.html", f"Repair of {job.model}, which says {job.target}", parts)
    return f"{report.as_text(parts)}\n\n{_there(job.out)}"


def draw_faces(job: Job, classes: Sequence[str], size: int, device: str) -> Path:
    """The folder of the images that the job's generator draws. Raises AimfairError where it has none, or no prompts."""
    if not job.generator or job.prompts is None:
        raise AimfairError(
            "synthetic images are needed: --synthetic FOLDER, or --generator NAME and --prompts FILE draw some"
        )
    bank = read_prompts(job.prompts, classes)
    return draw_synthetic(job.generator, bank, job.per_group, job.steps, job.guidance, size, job.out / "faces", device)


def _there(out: Path) -> str:
    return f"In {out}: {', '.join(name for name in WRITTEN if (out / name).exists())}"


def _targets(names: pd.Series, classes: Sequence[str]) -> Tensor:
    return torch.from_numpy(pd.Index(classes).get_indexer(names).astype(np.int64))


def read_photos(job: Job) -> tuple[pd.DataFrame, _images.Catalogue, list[str], list[str]]:
    """A row per photograph that has a label (its ``class``, ``split`` and protected labels), their catalogue in that order,
    the classes, and what there is to say of those left out."""
    table = read_table(job.labels, [job.target, *job.protected])
    column = next((name for name in FILE_COLUMNS if name in table), table.columns[0])
    if not job.images.exists():
        raise AimfairError(f"--images {job.images}: there is no such folder or file")
    inside = _images.Container(job.images)
    files = [(name, _images.Location(inside, name)) for name in inside.members]
    table = table.assign(**{"class": as_classes(table[job.target])}).set_index(column)
    table, locations, skipped = _images.match(table, files, job.labels)
    catalogue = _images.build(f"photographs {job.images}", table, locations, skipped)
    notes = [f"{len(skipped)} were left out, such as {skipped[0]}"] if skipped else []
    classes = order_classes(table["class"])
    if len(classes) < 2:
        raise AimfairError(f"{job.labels}: every {job.target} is {classes[0]}: there is nothing to tell apart")
    if "split" not in table:
        order = np.random.default_rng(job.seed).permutation(len(table))
        table["split"] = np.array(PARTS)[np.digitize(order / len(table), (0.7, 0.8))]
    if lacking := [part for part in PARTS if table.loc[table["split"] == part, "class"].nunique() < 2]:
        raise AimfairError(f"{job.labels}: the {lacking[0]} images are none, or all of one {job.target}")
    return table.rename_axis("name").reset_index(), catalogue, classes, notes


def train_biased(model: nn.Module, train: Photos, held: Photos, job: Job, classes: int, device: str) -> None:
    """Train the model in place as the book's ERM does, or read what an earlier call trained."""
    from safetensors.torch import load_file

    kept = job.out / "biased.safetensors"
    if kept.exists():
        model.load_state_dict(load_file(kept))
        return
    plan = Schedule(
        epochs=job.pretrain_epochs, milestones=(max(1, 2 * job.pretrain_epochs // 3),), batch_size=job.batch_size
    )
    sets = Batches(train, "training photographs", classes), Batches(held, "validation photographs", classes)
    how: dict[str, Any] = {"loss": cross_entropy, "what": "biased model", "resume": job.out / "biased.half.safetensors"}
    fit(model, *sets, plan, job.seed, device, **how)
    write_safetensors(model, kept, {"model": job.model})


def predictions(table: pd.DataFrame, classes: Sequence[str], before: Tensor, after: Tensor) -> pd.DataFrame:
    """The test images with the class that either model says and its score: the probability of the last class, or of the
    class it says."""
    for when, logits in (("before", before), ("after", after)):
        sure = logits.sigmoid() if logits.ndim == 1 else logits.softmax(1).max(1).values
        table = table.assign(**{when: np.array(classes)[decide(logits)], f"{when} score": sure.numpy().round(6)})
    return table.drop(columns="split")
