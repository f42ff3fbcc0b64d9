"""A study: the runs on one profile's faces. What notebooks and the command line work with."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import nn

from aimfair import datasets, environment, methods, models, prompts
from aimfair.audit import selection
from aimfair.datasets import Catalogue
from aimfair.datasets import folder as image_folder
from aimfair.environment import AimfairError, Diverged, home, resolve
from aimfair.faces import FaceSet
from aimfair.methods import Bench
from aimfair.study import measurements, profiles, runs, search
from aimfair.study.audit import judge_identity, judge_of
from aimfair.study.faces import splits, synthetic_sets
from aimfair.study.measurements import SCORES
from aimfair.study.pool import edited_faces, generator_identity, is_made_elsewhere, synthetic_faces
from aimfair.study.profiles import SEEDS, Profile
from aimfair.study.runs import Run
from aimfair.training import History

PROTOCOL = 1
"""Raised when a change of the code changes numbers on purpose: runs of an older protocol are no longer found."""

POLICY = ("batchnorm",)
"""Hyper-parameters of how to fine-tune, not of a method: readers of its runs who do not name them want the usual ones, as
they do of a method's ``options``."""

WITH_LOGITS = ("erm", "full-finetuning", "aim-fair")
"""The methods whose logits are published with their runs: of the others only what they predict."""

Found = TypeVar("Found")


class Study:
    """Everything a profile means on this machine: its faces, and what is trained on them.

    Nothing is read, generated or trained before it is asked for.
    """

    def __init__(
        self,
        profile: Profile,
        seed: int = 100,
        device: str = "auto",
        data_root: str = "",
        runs_root: str = "",
        reuse: bool = True,
    ) -> None:
        """See :func:`open_study`."""
        self.profile = profile
        self.seed = seed
        self.device = environment.choose_device(device)
        self.data_root = data_root
        self.runs_root = resolve(runs_root) if runs_root else runs.default_root()
        self.published_root = home() / "data" / "published"
        self.reuse = reuse
        self._faces: dict[str, FaceSet] = {}
        self._selected: dict[int, FaceSet] = {}
        self._edited: dict[tuple[int, float, float], FaceSet] = {}
        self._synthetic: dict[str, FaceSet] = {}
        self._gaps: dict[int, Run] = {}
        self._trained: dict[str, Study] = {}

    def varied(self, **changes: Any) -> Study:
        """This study with some fields of its profile changed. Both share the real faces that either has decoded, unless
        a field of :data:`aimfair.study.profiles.REAL` changes. Raises AimfairError for an impossible value.
        """
        other = Study(
            profiles.changed(self.profile, **changes),
            self.seed,
            self.device,
            self.data_root,
            str(self.runs_root),
            self.reuse,
        )
        if all(getattr(self.profile, name) == getattr(other.profile, name) for name in profiles.REAL):
            other._faces = self._faces
            if all(getattr(self.profile, name) == getattr(other.profile, name) for name in profiles.SYNTHETIC):
                other._synthetic = self._synthetic
        return other

    def trained(self, training: str) -> Study:
        """This study with another schedule of its trainings from scratch, all faces shared.

        training  learning rate, weight decay and epochs, such as "0.05 0.01 45"; the rate falls after two thirds of them
        Raises AimfairError for anything else.
        """
        if training not in self._trained:
            try:
                rate, decay, epochs = training.split()
                schedule = {
                    "pretrain_lr": float(rate),
                    "pretrain_weight_decay": float(decay),
                    "pretrain_epochs": int(epochs),
                }
            except ValueError as error:
                raise AimfairError(
                    f'training must be rate, weight decay and epochs, such as "0.05 0.01 45", got {training!r}'
                ) from error
            last = max(1, 2 * schedule["pretrain_epochs"] // 3)  # type: ignore[operator]
            self._trained[training] = self.varied(**schedule, pretrain_decay_at=last)
        return self._trained[training]

    # Faces

    @cached_property
    def catalogue(self) -> Catalogue:
        """Names and attributes of the profile's data set."""
        return datasets.load(self.profile.dataset, str(resolve(self.data_root)) if self.data_root else None)

    @cached_property
    def split(self) -> dict[str, np.ndarray]:
        """Indices of the biased training set, the validation set and the test set, and of the external corpus."""
        return splits(self.catalogue, self.profile)

    def faces(self, split: str) -> FaceSet:
        """The faces of "train", "validation" or "test", decoded once and kept."""
        if split not in self._faces:
            p = self.profile
            self._faces[split] = self.catalogue.faces(self.split[split], p.target, p.protected, p.image_size)
        return self._faces[split]

    @property
    def pool(self) -> FaceSet:
        """The synthetic faces from which every seed draws: found on disk, or generated now (resumable)."""
        if "pool" not in self._synthetic:
            self._synthetic["pool"] = synthetic_faces(self.profile, self.device, self.data_root)
        return self._synthetic["pool"]

    @pool.setter
    def pool(self, faces: FaceSet) -> None:
        self._synthetic["pool"] = faces

    def selected(self, seed: int) -> FaceSet:
        """What of the pool a seed draws its sets from: all of it, or the faces that the profile's rule selects."""
        p = self.profile
        if p.selection == "none":
            return self.pool
        if seed not in self._selected:
            places = selection.select(p.selection, self._candidates, self.pool.groups, p.budget(), seed)
            self._selected[seed] = self.pool.subset(places)
        return self._selected[seed]

    @cached_property
    def _candidates(self) -> selection.Candidates:
        judge = judge_of(self.profile, self.device, self.data_root)
        names = {"target": self.profile.target, "protected": self.profile.protected}
        return selection.candidates(self.pool, judge, names, self.faces("train").images)

    def synthetic_sets(self, seed: int) -> tuple[FaceSet, FaceSet]:
        """The balanced and the biased set of a seed, see :func:`aimfair.study.faces.synthetic_sets`."""
        return synthetic_sets(self.selected(seed), self.profile, len(self.split["train"]), seed)

    def edited(self, draw: int, weakest: float, strongest: float) -> FaceSet:
        """The training faces redrawn by the generator, the same for every seed: found on disk, or made now.

        See :func:`aimfair.study.pool.edited_faces`.
        """
        key = (draw, weakest, strongest)
        if key not in self._edited:
            self._edited[key] = edited_faces(
                self.profile,
                self.faces("train").without_protected(),
                self.device,
                self.data_root,
                draw=draw,
                weakest=weakest,
                strongest=strongest,
            )
        return self._edited[key]

    # Benches and runs

    def bench(self, seed: int, resume: Path | None = None, synthetic: bool = True) -> Bench:
        """What all methods of ``seed`` share. Without ``synthetic``, no synthetic face is drawn: both sets are empty."""
        p, nothing = self.profile, self.faces("train").subset([])
        balanced, biased = self.synthetic_sets(seed) if synthetic else (nothing, nothing)
        return Bench(
            seed=seed,
            device=self.device,
            train=self.faces("train"),
            validation=self.faces("validation"),
            balanced=balanced,
            biased=biased,
            pretraining=p.pretraining(),
            finetuning=p.finetuning(),
            fresh_model=lambda: models.build(p.backbone, seed, p.weights),
            biased_model=lambda: self.biased_model(seed),
            gaps=lambda score, mode: self.gaps(seed, score, mode),
            resume=resume,
            shares=p.shares(),
            pool=self.selected(seed) if synthetic else None,
            edited=self.edited if synthetic else None,
        )

    def config(self, method: str, hyper: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Everything that decides a run's numbers; its hash is the run's id.

        Which synthetic faces there are decides nothing for a method that is given none: ERM with another generator or
        other prompts is the same run.
        """
        settings = self.profile.settings() | self._contents
        known = methods.registry().get(method)
        if known is not None and "synthetic" not in known.needs:
            settings = {name: value for name, value in settings.items() if name not in profiles.SYNTHETIC}
        elif self.profile.selection not in ("none", "random"):
            settings["judge"] = judge_identity(self.profile)
        return {"protocol": PROTOCOL, "study": settings, "method": method, "hyper": dict(hyper), "seed": seed}

    @cached_property
    def _contents(self) -> dict[str, str]:
        """The settings that name files, with digests of what these hold, once and for all: it may take reading a folder.

        What the repository ships, and published runs have, is named without one.
        """
        p = self.profile
        named = {"generator": generator_identity(p)}
        if not is_made_elsewhere(p):
            named["prompts"] = prompts.identity(f"{p.dataset}/{p.task}", p.prompts)
        if Path(p.weights).is_file():
            with open(p.weights, "rb") as file:
                named["weights"] = f"{p.weights}@{hashlib.file_digest(file, 'blake2b').hexdigest()[:8]}"
        if p.dataset == "folder" and self.data_root:
            named["dataset"] = f"folder@{image_folder.fingerprint(resolve(self.data_root), p.target, p.protected)}"
        return named

    def find(self, config: Mapping[str, Any]) -> Run | None:
        """A finished run: with ``reuse`` a published one, else this machine's.

        In that order, because a run of another processor is as good as another seed: among published runs one of this
        machine would be the only one that does not share its biased model with the others, and could turn the choice of
        a search whose other runs are published.
        """
        found = runs.find_published(self.published_root, self.profile.profile, config) if self.reuse else None
        return found or runs.find(self.runs_root, config)

    def run(self, method: str, seed: int | None = None, **hyper: Any) -> Run:
        """The run of ``method`` with this seed: found, or trained now and stored.

        Raises AimfairError for an unknown method or hyper-parameter before anything is trained, and Diverged for a training
        whose loss is not finite, also if that was found out before.
        """
        run = self.attempt(method, seed, **hyper)
        if said := run.scores.get("diverged"):
            raise Diverged(said)
        return run

    def attempt(self, method: str, seed: int | None = None, **hyper: Any) -> Run:
        """As :meth:`run`; but a training whose loss is not finite is a run, too. It has ``scores["diverged"]``, what was
        said of it, and a logit for no face, which counts as class 0: no search will choose it.

        Raises Diverged for the baseline, because others start from its weights.
        """
        seed = self.seed if seed is None else seed
        if training := hyper.pop(search.TRAINING, ""):
            return self.trained(training).attempt(method, seed, **hyper)
        chosen = methods.get(method)
        config = self.config(method, chosen.hyper(**hyper), seed)
        return self.once(config, lambda: self.find(config), lambda: self._train(chosen, config))

    def once(self, config: Mapping[str, Any], find: Callable[[], Found | None], compute: Callable[[], Found]) -> Found:
        """What ``find`` gives, or else ``compute``, by one process while all others that want the same run wait for it."""
        found = find()
        if found is not None:
            return found
        lock = self.lock(config)
        try:
            self.runs_root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise AimfairError(
                f"cannot write to {self.runs_root} ({error.strerror}): free space, or name another folder with --runs "
                "(runs_root in a notebook)"
            ) from error
        try:
            found = find()
            if found is None:
                found = compute()
            return found
        finally:
            lock.release()

    def lock(self, config: Mapping[str, Any]) -> FileLock:
        """Held by the process that computes this run; who holds it may ask for the run all the same."""
        return FileLock(self.runs_root / f".{runs.run_id(config)}.lock", is_singleton=True)

    def _train(self, method: methods.Method, config: dict[str, Any]) -> Run:
        began = perf_counter()
        try:
            fitted = self._fit(method, config, self.runs_root / f".{runs.run_id(config)}.safetensors")
        except Diverged as error:
            if method.name == "erm":
                raise
            told = {"diverged": str(error), "note": "its loss was not finite, and it answers class 0 to everything"}
            fitted = methods.Fitted(models.Silent(), History(), told)
        if method.name == "erm":  # what others start from, here or from a clone, is what was evaluated
            models.halve(fitted.model)
        seconds = max(perf_counter() - began, fitted.history.seconds)  # of one that was resumed the latter
        scores = {
            **fitted.scores,
            "loss": [round(value, 5) for value in fitted.history.loss],
            "validation_accuracy": [round(value, 3) for value in fitted.history.validation_accuracy],
            "chosen_epoch": fitted.history.chosen,
            "seconds": round(seconds, 1),
            "device": environment.device_name(self.device),
            "torch": torch.__version__,
        }
        keep = fitted.model if method.name == "erm" else None
        return runs.store(self.runs_root, config, self._predict(fitted.model), scores, keep)

    def _fit(self, method: methods.Method, config: dict[str, Any], resume: Path) -> methods.Fitted:
        bench = self.bench(config["seed"], resume, synthetic="synthetic" in method.needs)
        return method.fit(bench.seen_by(method), config["hyper"])

    def classifier(self, method: str, seed: int | None = None, **hyper: Any) -> nn.Module:
        """The classifier behind a run: ERM's from its stored weights, any other one trained again.

        A training is a function of its configuration, so on the same processor and number of threads it is the
        classifier whose predictions were stored; nothing is stored here.
        """
        chosen = methods.get(method)
        seed = self.seed if seed is None else seed
        if method == "erm":
            return self.biased_model(seed)
        config = self.config(method, chosen.hyper(**hyper), seed)
        return self._fit(chosen, config, self.runs_root / f".{runs.run_id(config)}-again.safetensors").model

    def _predict(self, model: nn.Module) -> pd.DataFrame:
        return self.predict(model, {split: self.faces(split) for split in ("test", "validation")})

    def predict(self, model: nn.Module, sets: Mapping[str, FaceSet]) -> pd.DataFrame:
        """What a run stores (see :class:`aimfair.study.runs.Run`): a row per face of each of the sets, by name of the split."""
        tables = [
            pd.DataFrame(
                {
                    "split": split,
                    "name": faces.names.astype(str),
                    "target": faces.target.numpy().astype(np.int8),
                    "protected": faces.protected.numpy().astype(np.int8),  # type: ignore[union-attr]
                    "logit": models.evaluate(model.to(self.device), faces, self.device).numpy(),
                }
            )
            for split, faces in sets.items()
        ]
        return pd.concat(tables, ignore_index=True)

    def biased_model(self, seed: int) -> nn.Module:
        """A copy of the seed's ERM classifier: its stored weights, or trained now where only predictions were published."""
        run = self.run("erm", seed)

        def train() -> Path:
            return self._train(methods.get("erm"), run.config).folder / "model.safetensors"  # type: ignore[operator]

        weights = self.once(run.config, lambda: self.biased_weights(seed), train)
        return models.build(self.profile.backbone, seed, str(weights))

    def biased_weights(self, seed: int) -> Path | None:
        """Where the weights of the seed's ERM classifier lie: those of the run that :meth:`find` finds, if they were kept; else
        what there is, or nowhere."""
        identity = runs.run_id(self.config("erm", methods.get("erm").hyper(), seed))
        published = self.published_root / self.profile.profile / f"erm-{seed}-{identity}.safetensors"
        mine = self.runs_root / identity / "model.safetensors"
        places = (published, mine) if self.reuse else (mine, published)
        return next((path for path in places if path.exists()), None)

    def measure(self, name: str, seed: int | None = None, **hyper: Any) -> Run:
        """The measurement ``name`` of :func:`aimfair.study.measurements.registry` with this seed, as a run without
        predictions: found, or measured now; its scores also hold the seconds. Raises AimfairError for an unknown name,
        and where it is told of a method that it does not take, or of none that it needs."""
        known = measurements.registry()
        if name not in known:
            raise AimfairError(f"no measurement {name!r}; there are: {', '.join(known)}")
        seed = self.seed if seed is None else seed
        try:
            inspect.signature(known[name]).bind(self, seed, **hyper)
        except TypeError as error:
            raise AimfairError(
                f"measurement {name}: {error} (a method whose classifier is measured is named by of)"
            ) from error
        config = self.config(name, hyper, seed)

        def compute() -> Run:
            began = perf_counter()
            scores = known[name](self, seed, **hyper)
            scores["seconds"] = round(perf_counter() - began, 1)
            return runs.store(self.runs_root, config, pd.DataFrame({n: [] for n in [*runs.FACES, "logit"]}), scores)

        return self.once(config, lambda: self.find(config), compute)

    def gaps(
        self, seed: int, score: str = "absolute", mode: str = "train"
    ) -> tuple[dict[str, float], dict[str, float]]:
        """(domain_gap, bias_gap) per tensor; mode "train" is the official form, "eval" the deterministic one.

        Raises AimfairError for another mode, and for a score that is not among :data:`aimfair.study.measurements.SCORES`.
        """
        for name, value, known in (("score", score, SCORES), ("gradients", mode, ("train", "eval"))):
            if value not in known:
                raise AimfairError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if seed not in self._gaps:
            self._gaps[seed] = self.measure("gradient-gaps", seed)
        scores = self._gaps[seed].scores
        if mode == "train":
            domain, bias = scores["train"][score]
        else:
            domain, bias = scores["eval"][f"{max(self.profile.shares()):.2f}"][score]
        return domain, bias

    # Tables

    def published(self, method: str, **fixed: Any) -> list[Run]:
        """The published runs of ``method`` under this profile's name and settings; ``fixed`` as in :meth:`results`."""
        return [run for run in self.all_published(method) if is_wanted(run, fixed)]

    def all_published(self, method: str) -> list[Run]:
        """The published runs of ``method``, whatever their hyper-parameters."""
        found = runs.published_runs(self.published_root, self.profile.profile, method)
        is_mine = self._is_mine(method)
        return [run for run in found if is_mine(run.config)]

    def fresh(self, method: str, seed: int | None = None, **fixed: Any) -> list[Run]:
        """The runs of ``method`` on this machine, of one seed or of all, by seed and configuration; ``fixed`` as in
        :meth:`results`."""
        return [run for run in self.all_fresh(method, seed) if is_wanted(run, fixed)]

    def all_fresh(self, method: str, seed: int | None = None) -> list[Run]:
        """The runs of ``method`` on this machine, whatever their hyper-parameters, by seed and configuration."""
        is_mine = self._is_mine(method)
        mine = runs.all_runs(self.runs_root, lambda c: is_mine(c) and seed in (None, c["seed"]))
        return sorted(mine, key=lambda run: (run.seed, json.dumps(run.config["hyper"], sort_keys=True)))

    def _is_mine(self, method: str) -> Callable[[Mapping[str, Any]], bool]:
        """Whether a configuration is one of ``method`` in this study."""
        wanted = self.config(method, {}, 0)
        return lambda config: all(config[key] == wanted[key] for key in ("protocol", "study", "method"))

    def results(self, method: str, **fixed: Any) -> list[Run]:
        """What the book's tables show: the published runs of ``method``; for a study that nobody published, this machine's.

        fixed  hyper-parameters that the runs must have. Options and those of :data:`POLICY` that are not named must be the
               method's usual ones; all others may be anything
        Raises AimfairError where there are none, because a table without rows would say nothing.
        """
        found = self.published(method, **fixed) or self.fresh(method, **fixed)
        if not found:
            raise AimfairError(f"no run of {method} in this study: set reuse to False, or aimfair run {method} first")
        return found

    def publish(self) -> list[Path]:
        """Pack all runs of this study on this machine into ``data/published``; returns the files written.

        So that the repository stays light, logits come along only for what chapters ask them of: the methods of
        :data:`WITH_LOGITS` with the values that they search, in a study as its profile's file has it. Weights of biased
        models (float16), so that every clone fine-tunes the same ones, come along for the book's main study, and for the
        first seed of its balanced twin.
        """
        name, folder = self.profile.profile, self.published_root / self.profile.profile
        mine = [run for method in (*methods.registry(), *measurements.registry()) for run in self.all_fresh(method)]
        logits: set[str] = set()
        if name in profiles.available() and self.profile == profiles.load(name):
            searched = {method: search.values(method) for method in WITH_LOGITS}
            logits = {run.id for run in mine if run.config["hyper"] in searched.get(run.config["method"], ())}
        written = runs.publish(mine, self.published_root, name, logits)
        main = profiles.load(profiles.MAIN)
        if self.profile in (main, replace(main, minority=1.0)):
            for run in self.fresh("erm", None if self.profile == main else SEEDS[0]):
                weights = folder / f"erm-{run.seed}-{run.id}.safetensors"
                if not weights.exists():  # else others that are published started from these
                    shutil.copy(run.folder / "model.safetensors", weights)  # type: ignore[operator]
                    written.append(weights)
        return written


def is_wanted(run: Run, fixed: Mapping[str, Any]) -> bool:
    """Whether the run has the hyper-parameters ``fixed``, and the usual :data:`POLICY` and options where they are not named."""
    method = methods.registry().get(run.config["method"])
    usual = method.usual if method else {}
    unnamed = {*POLICY, *(method.options if method else ())}
    wanted = {name: usual[name] for name in unnamed if name in usual} | dict(fixed)
    has = {**usual, **run.config["hyper"]}
    return all(name in has and has[name] == value for name, value in wanted.items())


def open_study(profile: str = "demo", *, changes: Mapping[str, Any] | None = None, **common: Any) -> Study:
    """The study of a profile by name or YAML file.

    changes  fields of the profile to override
    common   seed, device ("auto", "cpu", "cuda"), data_root (folder of the real images), runs_root, reuse (look among
             the published runs too)
    """
    return Study(profiles.load(profile, **(changes or {})), **common)


def from_notebook(variables: Mapping[str, Any]) -> Study:
    """The study that a notebook's parameters describe; called with ``globals()``. From then on the notebook shows tables
    by :func:`without_style`."""
    without_style()
    profile, common = profiles.from_parameters(variables)
    common.pop("profile", None)
    return Study(profile, **common)


def without_style() -> None:
    """In a notebook, show data frames without the style sheet that pandas puts before each: a few hundred bytes of what the book
    and JupyterLab say already."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, _html)


def _html(frame: pd.DataFrame) -> str | None:
    html = frame._repr_html_()  # None where the reader's options say so
    return html and re.sub(r"<style scoped>.*?</style>\n?", "", html, flags=re.DOTALL)
