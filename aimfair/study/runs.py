"""Runs on disk: a folder found by the hash of its configuration, holding predictions, never aggregates.

``<runs root>/<id>/``  config.json, predictions.parquet, scores.json, and model.safetensors where asked. Written
under a temporary name and renamed: half a run is never found.

Published runs are the same thing packed small, in batches that are never written again once they are there:
``data/published/<profile>/<method>.0001.parquet``, ``.0002`` and so on have a row per run, with its configuration and
scores as JSON, the sign of every logit as a bit, and for some runs the logits themselves as float16.
``faces.parquet`` lists the faces that all runs of the profile predict, in their order.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from aimfair import models
from aimfair.environment import AimfairError, aside, home, locked, reading, resolve
from aimfair.metrics import FairnessReport, fairness_report
from aimfair.training import History

Config = Mapping[str, Any]
FACES = ["split", "name", "target", "protected"]


def default_root() -> Path:
    """Where this machine's runs are kept: the folder that AIMFAIR_RUNS names, else ``data/runs``."""
    named = os.environ.get("AIMFAIR_RUNS")
    return resolve(named) if named else home() / "data" / "runs"


def run_id(config: Config) -> str:
    """16 hexadecimal digits: equal configurations, whatever the order of their keys, have equal ids."""
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Run:
    """One trained classifier's predictions and what else was measured.

    predictions  a row per face: split ("test", "validation"), name, target, protected, the ``predicted`` target, and the
                 logit, which most published runs lack (see :meth:`logits`)
    scores       seconds, device, training history, mask, ...
    folder       where its weights may lie; None for a published run
    """

    config: dict[str, Any]
    scores: dict[str, Any]
    predictions: pd.DataFrame
    folder: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if "predicted" not in self.predictions:
            predicted = (self.predictions["logit"] >= 0).astype(np.int8)
            object.__setattr__(self, "predictions", self.predictions.assign(predicted=predicted))

    @property
    def id(self) -> str:
        """See :func:`run_id`."""
        return run_id(self.config)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config["seed"]

    @property
    def history(self) -> History:
        """Loss and validation accuracy of every epoch, and the epoch that was kept."""
        loss, accuracy = self.scores["loss"], self.scores["validation_accuracy"]
        return History(loss, accuracy, chosen=self.scores["chosen_epoch"])

    def report(self, split: str = "test") -> FairnessReport:
        """The fairness report of ``split``, computed from the predictions."""
        return fairness_report(*self._of(split, "target", "predicted", "protected"))

    def accuracy(self, split: str = "validation") -> float:
        """Overall accuracy in per cent, no group label read: what checkpoints and learning rates are chosen by."""
        target, predicted = self._of(split, "target", "predicted")
        return 100 * float((predicted == target).mean())

    def logits(self, split: str = "test") -> np.ndarray:
        """The (N,) logits of ``split``. Raises AimfairError for a run that was published without them."""
        if "logit" not in self.predictions:
            method, seed = self.config["method"], self.seed
            raise AimfairError(
                f"run {self.id} ({method}, seed {seed}) was published without its logits: train it again"
            )
        return self._of(split, "logit")[0]

    def _of(self, split: str, *columns: str) -> list[np.ndarray]:
        mine = (self.predictions["split"] == split).to_numpy()  # no name of a face is copied for it
        return [self.predictions[column].to_numpy()[mine] for column in columns]


def store(root: Path, config: Config, predictions: pd.DataFrame, scores: Config, model: nn.Module | None = None) -> Run:
    """Write a run and return it as found. If another process finished the same run first, its result stands."""
    folder = root / run_id(config)
    try:
        with aside(folder, "free space, or name another folder with --runs") as partial:
            partial.mkdir()
            (partial / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
            (partial / "scores.json").write_text(json.dumps(scores))
            predictions[[*FACES, "logit"]].to_parquet(partial / "predictions.parquet", index=False)
            if model is not None:
                models.save(model, partial / "model.safetensors")
    except AimfairError:
        if not folder.exists():
            raise
    return load(folder)


def load(folder: Path) -> Run:
    """The run in ``folder``. Raises AimfairError if a file is missing or damaged."""
    predictions = folder / "predictions.parquet"
    with reading(predictions, f"delete {folder} and run again"):
        table = pd.read_parquet(predictions)
        return Run(read_json(folder / "config.json"), read_json(folder / "scores.json"), table, folder)


def read_json(path: Path) -> dict[str, Any]:
    """Configuration or scores of a run. Raises AimfairError for a damaged file."""
    with reading(path, f"delete {path.parent} and run again"):
        return dict(json.loads(path.read_text()))


def find(root: Path, config: Config) -> Run | None:
    """The run with this configuration below ``root``, or None."""
    folder = root / run_id(config)
    return load(folder) if folder.is_dir() else None


def all_runs(root: Path, keep: Callable[[dict[str, Any]], bool] = lambda config: True) -> Iterator[Run]:
    """Every finished run below ``root`` whose configuration ``keep`` accepts, by id; unfinished ones are hidden folders."""
    for path in sorted(root.glob("[!.]*/config.json")):
        if keep(read_json(path)):
            yield load(path.parent)


def find_published(root: Path, profile: str, config: Config) -> Run | None:
    """The published run with this configuration, or None."""
    identity = run_id(config)
    for batch in _batches(root / profile, config["method"]):
        if identity in _packed(batch):
            return _unpack(root / profile, _packed(batch)[identity])
    return None


def is_published(root: Path, profile: str, config: Config) -> bool:
    """Whether :func:`find_published` would find it, without unpacking it."""
    identity = run_id(config)
    return any(identity in _packed(batch) for batch in _batches(root / profile, config["method"]))


def published_runs(root: Path, profile: str, method: str) -> Iterator[Run]:
    """All published runs of one method, in the order in which they were published."""
    for batch in _batches(root / profile, method):
        for packed in _packed(batch).values():
            yield _unpack(root / profile, packed)


def published_scores(root: Path, profile: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Configuration and scores of every published run of a profile."""
    for batch in _batches(root / profile):
        for packed in _packed(batch).values():
            yield packed["config"], json.loads(packed["scores"])


def publish(runs: Iterable[Run], root: Path, profile: str, logits: Collection[str] = ()) -> list[Path]:
    """Pack runs for the repository, in a new batch of each method; returns the files written.

    A run that is published already stays as it is, though this one may differ in the last digits or, after a long
    training on another processor, in more: others that are published started from it.

    logits  ids of the runs whose logits are published too, rounded to float16; of the others only their signs are
    Raises AimfairError where a run predicts other faces than those of the profile.
    """
    folder = root / profile
    # Two that publish at once would give their batches the same number. The lock is no file that git would see.
    with locked(Path(tempfile.gettempdir(), f"aimfair-{run_id({'publishes': str(folder.resolve())})}.lock")):
        return _publish([run for run in runs if not is_published(root, profile, run.config)], folder, logits)


def _publish(runs: list[Run], folder: Path, logits: Collection[str]) -> list[Path]:
    listed = folder / "faces.parquet"
    faces, written = _faces(listed) if listed.exists() else None, []
    new: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        if len(run.predictions):
            mine = run.predictions[FACES].reset_index(drop=True)
            faces = mine if faces is None else faces
            if not mine.equals(faces):
                raise AimfairError(f"run {run.id} predicts other faces than {folder}: publish it under another profile")
        new.setdefault(run.config["method"], {})[run.id] = _pack(run, run.id in logits)
    if new:
        folder.mkdir(parents=True, exist_ok=True)
    if faces is not None and not listed.exists():
        written.append(_write(faces, listed))
    for method, packed in new.items():
        number = max((int(batch.suffixes[0][1:]) for batch in _batches(folder, method)), default=0) + 1
        written.append(_write(pd.DataFrame(packed.values()), folder / f"{method}.{number:04d}.parquet"))
    return sorted(written)


def _batches(folder: Path, method: str = "*") -> list[Path]:
    return sorted(folder.glob(f"{method}.[0-9]*.parquet"))


def _write(table: pd.DataFrame, path: Path) -> Path:
    with aside(path) as partial:
        table.to_parquet(partial, index=False, compression="zstd", compression_level=19)
    return path


def _pack(run: Run, logits: bool) -> dict[str, Any]:
    return {
        "config": json.dumps(run.config, sort_keys=True),
        "scores": json.dumps(_short(run.scores), sort_keys=True),
        "signs": np.packbits(run.predictions["predicted"].to_numpy(bool)).tobytes(),
        "logits": run.predictions["logit"].to_numpy(np.float16).tobytes() if logits else None,
    }


def _short(value: Any) -> Any:
    """``value`` with every number in it rounded to seven significant digits: with six, two tensors may tie in a mask."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value


@cache  # a batch never changes
def _packed(batch: Path) -> dict[str, dict[str, Any]]:
    with reading(batch, "restore it (git checkout) or fetch it again"):
        rows = pd.read_parquet(batch).to_dict("records")
        configs = [json.loads(row["config"]) for row in rows]
        return {run_id(config): row | {"config": config} for config, row in zip(configs, rows, strict=True)}


@cache
def _faces(path: Path) -> pd.DataFrame:
    with reading(path, "restore it (git checkout) or fetch it again"):
        return pd.read_parquet(path)[FACES]


def _unpack(folder: Path, packed: dict[str, Any]) -> Run:
    measured = not packed["signs"]  # a measurement predicts no face
    faces = pd.DataFrame({name: [] for name in FACES}) if measured else _faces(folder / "faces.parquet")
    signs = np.frombuffer(packed["signs"], np.uint8)
    predictions = faces.assign(predicted=np.unpackbits(signs, count=len(faces)).astype(np.int8))
    if packed["logits"] is not None:
        predictions["logit"] = np.frombuffer(packed["logits"], np.float16).astype(np.float32)
    return Run(packed["config"], json.loads(packed["scores"]), predictions)
