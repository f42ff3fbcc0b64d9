"""What runs will cost in hours and gigabytes, told by what runs have recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from aimfair import diffusion, methods, synthetic
from aimfair.engines import BIASED_MODEL, POOL, Machine, study_of
from aimfair.experiments import Cell
from aimfair.measurements import MEASUREMENTS
from aimfair.paths import home
from aimfair.profiles import Profile

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
    """How many images of the profile's synthetic pool are not drawn yet; 0 where they were made elsewhere."""
    if profile.generator.startswith("folder:"):
        return 0
    return len(diffusion.missing(synthetic.pool_jobs(profile), synthetic.pool_folder(profile)))


def _drawing(p: Profile) -> float:
    """Seconds for what is missing of a pool, and for the training of its generator if that is missing too."""
    tiny = bool(p.corpus) or p.generator.startswith("data/tiny-sd/")
    training = 60 * p.generator_minutes if p.corpus and not (home() / p.generator).exists() else 0.0
    each = SECONDS_PER_IMAGE["tiny"] * p.steps / 8 if tiny else SECONDS_PER_IMAGE["any"]
    return training + each * images_missing(p)


def _work(method: str, faces: int, pretrain_epochs: int, finetune_epochs: int) -> int:
    """Faces times epochs, to which the time of a run is taken to be proportional."""
    scratch = method in MEASUREMENTS or methods.get(method).start == "scratch"
    return faces * (pretrain_epochs if scratch else finetune_epochs)


def _mine(root: Path) -> Iterator[Record]:
    for path in root.glob("[!.]*/config.json"):
        scores = json.loads((path.parent / "scores.json").read_text())
        yield from _record(json.loads(path.read_text()), scores, sum(f.stat().st_size for f in path.parent.iterdir()))


def _published(root: Path) -> Iterator[Record]:
    for path in root.glob("*/*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            yield from _record(line["config"], line["scores"], 0)


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
