"""What runs will cost in hours and gigabytes, told by what runs have recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from aimfair import methods
from aimfair.environment import home
from aimfair.study import runs
from aimfair.study.grid.engines import BIASED_MODEL, POOL, Machine, study_of
from aimfair.study.grid.experiments import Cell
from aimfair.study.measurements import MEASUREMENTS
from aimfair.study.pool import is_made_elsewhere, is_tiny, missing_images, pool_folder, pool_jobs, will_be_trained
from aimfair.study.profiles import Profile

SECONDS_PER_FACE = 0.001
"""Of an epoch, where nothing is recorded: a slim ResNet-18 at 64 px on two cores, with what is around the training."""

SECONDS_PER_IMAGE = {"tiny": 0.04, "any": 4.0}
"""Of a synthetic face: by a tiny Stable Diffusion in 8 steps on two cores; by one at 512 px on a GPU."""

BYTES_PER_RUN = 150_000
"""Predictions and scores, where no run lies on this machine."""


@dataclass(frozen=True)
class Estimate:
    """Hours on one worker, gigabytes on disk, and what that is based on."""

    hours: float
    gigabytes: float
    basis: str


@dataclass(frozen=True)
class Record:
    """What a finished run took: seconds, also per face and epoch, and bytes on this machine (0 for a published run)."""

    method: str
    network: tuple[str, int]
    rate: float
    bytes: int


def records(machine: Machine) -> list[Record]:
    """All runs of this machine, then all published ones, whatever their study."""
    return [*_mine(Path(machine.runs_root)), *_published(home() / "data" / "published")]


def estimate(cells: Iterable[Cell], machine: Machine, known: list[Record]) -> Estimate:
    """What computing ``cells`` costs.

    Seconds per face and epoch are the median of this machine's runs of the same method with the same network, else of
    the published ones, else of any method with that network, else :data:`SECONDS_PER_FACE`.
    """
    rates, sizes = _rates(known), _sizes(known)
    seconds, space, basis = 0.0, 0.0, Counter[str]()
    for cell in cells:
        p = study_of(cell, machine).profile
        if cell.method == POOL:
            seconds, space = seconds + _drawing(p), space + 1.6 * p.image_size**2 * images_missing(p)
            continue
        method, network = "erm" if cell.method == BIASED_MODEL else cell.method, (p.backbone, p.image_size)
        rate, source = rates.get((method, network)) or rates.get(("", network)) or (SECONDS_PER_FACE, "a guess")
        seconds += rate * _work(method, p.train_images, p.pretrain_epochs, p.finetune_epochs)
        space += sizes.get(method) or sizes.get("") or BYTES_PER_RUN
        basis[source] += 1
    said = "; ".join(f"{count} by {source}" for source, count in basis.most_common())
    return Estimate(seconds / 3600, space / 1e9, said)


def images_missing(profile: Profile) -> int:
    """How many images of the profile's synthetic pool are not drawn yet; 0 where they were made elsewhere.

    Raises AimfairError where images lie in their place that were made with other settings.
    """
    if is_made_elsewhere(profile):
        return 0
    return len(missing_images(profile, pool_jobs(profile), pool_folder(profile)))


def training_seconds(p: Profile) -> float:
    """For the training of the profile's generator, if it is missing and trained here."""
    return 60 * p.generator_minutes if will_be_trained(p) else 0.0


def seconds_per_image(p: Profile) -> tuple[float, str]:
    """A guess without the model, and in words for what: a tiny one of this book, or any other."""
    if is_tiny(p):
        return SECONDS_PER_IMAGE["tiny"] * p.steps / 8, "two processor cores"
    return SECONDS_PER_IMAGE["any"], "a GPU"


def _drawing(p: Profile) -> float:
    """Seconds for what is missing of a pool, and for the training of its generator if that is missing too."""
    missing = images_missing(p)
    return (training_seconds(p) + seconds_per_image(p)[0] * missing) if missing else 0.0


def _work(method: str, faces: int, pretrain_epochs: int, finetune_epochs: int) -> int:
    """Faces times epochs, to which the time of a run is taken to be proportional."""
    scratch = method in MEASUREMENTS or methods.get(method).start == "scratch"
    return faces * (pretrain_epochs if scratch else finetune_epochs)


def _mine(root: Path) -> Iterator[Record]:
    for path in root.glob("[!.]*/config.json"):
        scores = json.loads((path.parent / "scores.json").read_text())
        yield from _record(json.loads(path.read_text()), scores, sum(f.stat().st_size for f in path.parent.iterdir()))


def _published(root: Path) -> Iterator[Record]:
    for profile in sorted(path.parent.name for path in root.glob("*/faces.parquet")):
        for config, scores in runs.published_scores(root, profile):
            yield from _record(config, scores, 0)


def _record(config: Mapping[str, Any], scores: Mapping[str, Any], size: int) -> Iterator[Record]:
    study, method = config["study"], config["method"]
    if "seconds" in scores and (method in MEASUREMENTS or method in methods.registry()):
        work = _work(method, study["train_images"], study["pretrain_epochs"], study["finetune_epochs"])
        yield Record(method, (study["backbone"], study["image_size"]), scores["seconds"] / work, size)


def _rates(known: list[Record]) -> dict[tuple[str, tuple[str, int]], tuple[float, str]]:
    """(method, network) -> seconds per face and epoch, and whose; method "" stands for any."""
    by: dict[tuple[str, tuple[str, int]], dict[bool, list[float]]] = {}
    for record in known:
        for method in (record.method, ""):
            by.setdefault((method, record.network), {}).setdefault(record.bytes > 0, []).append(record.rate)
    rates = {}
    for (method, network), values in by.items():
        mine = True in values
        whose = "runs of this machine" if mine else "published runs"
        rates[method, network] = (
            median(values[mine]),
            f"{whose} of {'the same method' if method else 'other methods'}",
        )
    return rates


def _sizes(known: list[Record]) -> dict[str, float]:
    """Method -> bytes of its runs on this machine; "" stands for any."""
    by: dict[str, list[int]] = {}
    for record in known:
        if record.bytes:
            for method in (record.method, ""):
                by.setdefault(method, []).append(record.bytes)
    return {method: median(values) for method, values in by.items()}
