"""A study that takes half a second a run, for the tests of grids."""

from pathlib import Path

import numpy as np
from PIL import Image

from aimfair import datasets
from aimfair.study.grid import Machine
from aimfair.study.grid.experiments import Experiment, Row, cells

SMALL = {
    "train_images": 80,
    "validation_images": 40,
    "images_per_group": 20,
    "image_size": 16,
    "batch_size": 20,
}
"""What is changed of the profile ``smoke``, beside its generator."""

ROWS = [
    Row("Baseline", "erm"),
    Row("Synthetic", "synthetic-only"),
    Row("AIM-Fair", "aim-fair", {"lr": 0.03}),
    Row("All", "full-finetuning", {"lr": 0.03}),
]


def draw_pool(folder: Path) -> Path:
    """Twenty web-style faces of each group in the layout of images made elsewhere."""
    world = datasets.load("faceworld", style="web", seed=3, train=0, validation=0, test=0, corpus=200)
    target, protected = world.labels("Smiling"), world.labels("Male")
    for t, p in ((0, 0), (0, 1), (1, 0), (1, 1)):
        place = folder / "Smiling_Male" / f"{t}_{p}"
        place.mkdir(parents=True)
        index = np.flatnonzero((target == t) & (protected == p))[:20]
        for number, image in enumerate(world.read(index, 16)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{number:05d}.png")
    return folder


def changes(pool: Path) -> dict:
    return {**SMALL, "generator": f"folder:{pool}"}


def some_cells(pool: Path, rows=tuple(ROWS), seeds=(100,), settings=None) -> list:
    """The cells of a table with these rows."""
    table = Experiment("Table 0", "A small one", settings or {"as it is": {}}, list(rows))
    return cells(table, "smoke", changes(pool), list(seeds))


def machine(runs_root: Path, **more) -> Machine:
    return Machine(**{"device": "cpu", "runs_root": str(runs_root), **more})
