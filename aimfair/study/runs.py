"""Runs on disk: a folder found by the hash of its configuration, holding predictions, never aggregates.

``<runs root>/<id>/``  config.json, predictions.parquet, scores.json, and model.safetensors where asked. Written
under a temporary name and renamed: half a run is never found.

Published runs are the same thing packed small, one pair of files per method and profile:
``data/published/<profile>/<method>.parquet`` has one float16 column of logits per run (rounding keeps every
sign, so every accuracy), ``<method>.jsonl`` its configuration and scores, ``faces.parquet`` the rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from aimfair import models
from aimfair.environment import AimfairError, home, resolve
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

    predictions  a row per face: split ("test", "validation"), name, target, protected, logit
    scores       seconds, device, training history, mask, ...
    folder       where its weights may lie; None for a published run
    """

    config: dict[str, Any]
    scores: dict[str, Any]
    predictions: pd.DataFrame
    folder: Path | None = field(default=None, compare=False)

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
        target, logit, protected = self._of(split, "target", "logit", "protected")
        return fairness_report(target, logit >= 0, protected)

    def accuracy(self, split: str = "validation") -> float:
        """Overall accuracy in per cent, no group label read: what checkpoints and learning rates are chosen by."""
        target, logit = self._of(split, "target", "logit")
        return 100 * float(((logit >= 0) == (target == 1)).mean())

    def _of(self, split: str, *columns: str) -> list[np.ndarray]:
        mine = (self.predictions["split"] == split).to_numpy()  # no name of a face is copied for it
        return [self.predictions[column].to_numpy()[mine] for column in columns]


def store(root: Path, config: Config, predictions: pd.DataFrame, scores: Config, model: nn.Module | None = None) -> Run:
    """Write a run and return it as found. If another process finished the same run first, its result stands."""
    folder, partial = root / run_id(config), None
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
        (partial / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
        (partial / "scores.json").write_text(json.dumps(scores))
        predictions.to_parquet(partial / "predictions.parquet", index=False)
        if model is not None:
            models.save(model, partial / "model.safetensors")
        os.rename(partial, folder)
    except OSError as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if not folder.exists():
            raise AimfairError(
                f"cannot write run {folder}: {error.strerror}; free space, or name another folder with --runs"
            ) from error
    return load(folder)


def load(folder: Path) -> Run:
    """The run in ``folder``. Raises AimfairError if a file is missing or damaged."""
    try:
        return Run(
            json.loads((folder / "config.json").read_text()),
            json.loads((folder / "scores.json").read_text()),
            pd.read_parquet(folder / "predictions.parquet"),
            folder,
        )
    except (OSError, ValueError) as error:
        raise AimfairError(f"run {folder} is damaged ({error}): delete the folder and run again") from error


def find(root: Path, config: Config) -> Run | None:
    """The run with this configuration below ``root``, or None."""
    folder = root / run_id(config)
    return load(folder) if folder.is_dir() else None


def all_runs(root: Path, keep: Callable[[dict[str, Any]], bool] = lambda config: True) -> Iterator[Run]:
    """Every finished run below ``root`` whose configuration ``keep`` accepts, by id; unfinished ones are hidden folders."""
    for path in sorted(root.glob("[!.]*/config.json")):
        if keep(json.loads(path.read_text())):
            yield load(path.parent)


def find_published(root: Path, profile: str, config: Config) -> Run | None:
    """The published run with this configuration, or None."""
    method = config["method"]
    listed = _published_index(root / profile / f"{method}.jsonl")
    return _unpack(root / profile, method, listed[run_id(config)]) if run_id(config) in listed else None


def is_published(root: Path, profile: str, config: Config) -> bool:
    """Whether :func:`find_published` would find it, without unpacking it."""
    return run_id(config) in _published_index(root / profile / f"{config['method']}.jsonl")


def published_runs(root: Path, profile: str, method: str) -> Iterator[Run]:
    """All published runs of one method, in the order in which they were published."""
    for line in _published_index(root / profile / f"{method}.jsonl").values():
        yield _unpack(root / profile, method, line)


def publish(runs: Iterable[Run], root: Path, profile: str) -> list[Path]:
    """Pack runs for the repository, adding to those already published; returns the files written.

    A run that is published already stays as it is, though this one may differ in the last digits or, after a long training
    on another processor, in more: others that are published started from it. All runs of a profile predict the same faces: raises AimfairError if one does not.
    """
    folder = root / profile
    by_method: dict[str, dict[str, Run]] = {}
    for run in runs:
        by_method.setdefault(run.config["method"], {})[run.id] = run
    if by_method:
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for method, new in by_method.items():
        there = {r.id: r for r in published_runs(root, profile, method)}
        known = there | {identity: run for identity, run in new.items() if identity not in there}
        first = next(iter(known.values())).predictions
        if len(first):
            written.append(_publish_faces(folder, first))
        columns = {}
        for identity, run in known.items():
            if len(run.predictions) != len(first) or not (run.predictions[FACES].values == first[FACES].values).all():
                raise AimfairError(f"run {identity} of {method} predicts other faces than the published ones")
            columns[identity] = run.predictions["logit"].to_numpy(np.float16)
        pd.DataFrame(columns).to_parquet(folder / f"{method}.parquet", index=False, compression="zstd")
        lines = [json.dumps({"config": r.config, "scores": r.scores}, sort_keys=True) for r in known.values()]
        (folder / f"{method}.jsonl").write_text("\n".join(lines) + "\n")
        written += [folder / f"{method}.parquet", folder / f"{method}.jsonl"]
    _published_index.cache_clear()
    _published_logits.cache_clear()
    _published_faces.cache_clear()
    return sorted(set(written))


def _publish_faces(folder: Path, predictions: pd.DataFrame) -> Path:
    path = folder / "faces.parquet"
    faces = predictions[FACES].reset_index(drop=True)
    if path.exists() and not pd.read_parquet(path).equals(faces):
        raise AimfairError(f"{path} lists other faces: publish under another profile name")
    if not path.exists():
        faces.to_parquet(path, index=False, compression="zstd")
    return path


@lru_cache(maxsize=64)
def _published_index(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {run_id(line["config"]): line for line in lines}


@lru_cache(maxsize=16)
def _published_logits(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path)


@lru_cache(maxsize=4)
def _published_faces(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=FACES)


def _unpack(folder: Path, method: str, line: dict[str, Any]) -> Run:
    logits = _published_logits(folder / f"{method}.parquet")[run_id(line["config"])].to_numpy(np.float32)
    faces = _published_faces(folder / "faces.parquet")
    predictions = (faces if len(logits) else faces.iloc[:0]).assign(logit=logits)
    return Run(line["config"], line["scores"], predictions)
