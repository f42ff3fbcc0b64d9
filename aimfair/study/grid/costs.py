"""What tasks will cost in hours and gigabytes: as much as finished runs took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from aimfair import methods
from aimfair.environment import home
from aimfair.study import pool, runs
from aimfair.study.grid.experiments import CHOSEN, is_measurement
from aimfair.study.grid.lookup import Machine, study_of
from aimfair.study.grid.tasks import Task, missing_images

SECONDS_PER_FACE = 0.001
"""Of an epoch, where nothing is recorded: a slim ResNet-18 at 64 px on two cores, with what is around the training."""

SECONDS_PER_IMAGE = {"tiny": 0.005, "any": 0.08}
"""Of a step of a synthetic face: by a tiny Stable Diffusion on two cores; by one at 512 px on a GPU."""

BYTES_PER_RUN = 150_000
"""Predictions and scores."""

Rates = dict[tuple[str, str, int], float]
"""(method, backbone, image size) -> seconds per face and epoch; method "" stands for any."""


def rates(machine: Machine) -> Rates:
    """The medians of this machine's runs, and of the published ones where it has none."""
    published = home() / "data" / "published"
    theirs = [
        each
        for path in published.glob("*/faces.parquet")
        for each in runs.published_scores(published, path.parent.name)
    ]
    known: Rates = {}
    for finished in (theirs, _mine(Path(machine.runs_root))):
        seconds: dict[tuple[str, str, int], list[float]] = {}
        for config, scores in finished:
            p, method = config["study"], config["method"]
            if "seconds" in scores:
                rate = scores["seconds"] / _work(method, p["train_images"], p["pretrain_epochs"], p["finetune_epochs"])
                for name in (method, ""):
                    seconds.setdefault((name, p["backbone"], p["image_size"]), []).append(rate)
        known |= {key: median(values) for key, values in seconds.items()}
    return known


def estimate(tasks: Iterable[Task], machine: Machine, known: Rates) -> tuple[float, float]:
    """(hours on one worker, gigabytes on disk) of ``tasks``."""
    seconds, space = 0.0, 0.0
    for task in tasks:
        opened, training = study_of(task.cell, machine), dict(task.cell.hyper).get("training", CHOSEN)
        p = (opened if training.startswith(CHOSEN) else opened.trained(training)).profile
        if task.kind == "pool":
            images = missing_images(p)
            seconds += SECONDS_PER_IMAGE["tiny" if pool.is_tiny(p) else "any"] * p.steps * images
            seconds += 60 * p.generator_minutes * pool.will_be_trained(p)
            space += 1.6 * p.image_size**2 * images
            continue
        method = task.cell.method if task.kind == "run" else "erm"
        network = (p.backbone, p.image_size)
        rate = known.get((method, *network)) or known.get(("", *network)) or SECONDS_PER_FACE
        seconds += rate * _work(method, p.train_images, p.pretrain_epochs, p.finetune_epochs)
        space += BYTES_PER_RUN
    return seconds / 3600, space / 1e9


def _work(method: str, faces: int, pretrain_epochs: int, finetune_epochs: int) -> int:
    """Faces times epochs, to which the time of a run is taken to be proportional."""
    scratch = is_measurement(method) or methods.get(method).start == "scratch"
    return faces * (pretrain_epochs if scratch else finetune_epochs)


def _mine(root: Path) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for path in root.glob("[!.]*/config.json"):
        yield runs.read_json(path), runs.read_json(path.parent / "scores.json")
