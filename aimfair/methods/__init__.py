"""Every way to train a classifier that this book compares. The registry finds them by the files of this folder.

A method is a function ``fit(bench, hyper) -> Fitted`` and a declaration (:class:`Method`): which labels it reads, what it
starts from, its default hyper-parameters and which of them are searched. A file declares one method as ``METHOD`` or a
family of them as ``METHODS``. Methods may also live outside the library: in ``notebooks/methods`` and in the folders that
the environment variable ``AIMFAIR_METHODS`` lists. Wherever its file is, a method appears in ``aimfair run``, in the
tables and in the automatic test.
"""

from __future__ import annotations

import importlib
import math
import os
import pkgutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from aimfair.environment import AimfairError, home, resolve
from aimfair.faces import FaceSet
from aimfair.training import History, Schedule

NEEDS = ("train protected", "validation protected", "synthetic")
"""What a method may declare that it needs, beyond real images with target labels."""

LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""The one grid that every fine-tuning method searches, wide enough that no winner sits on its edge."""

CHECKPOINT_RULE = {"select": "validation-accuracy"}
"""The ``options`` of every fine-tuning method: which epoch is kept, see :class:`aimfair.training.Schedule`."""


@dataclass(frozen=True)
class Bench:
    """Everything that the methods of one seed share, so that they are compared like with like.

    train, validation  real faces, biased and natural; protected labels are withheld from methods that did not ask
    balanced, biased   synthetic faces drawn for this seed: equal groups, and groups in ``shares``
    fresh_model        an untrained classifier, the same for every method of the seed
    biased_model       a copy of the classifier trained by ERM on ``train``
    gaps               (score, "train" or "eval") -> (domain_gap, bias_gap) of the biased model's gradients, per tensor
    shares             of the four groups of ``train``, as the study assumes them: prior knowledge, no label is read
    pool               all synthetic faces, of which ``balanced`` and ``biased`` are drawn; None where there are no more
    edited             (draw, weakest, strongest) -> ``train`` in its order, each face redrawn by the text-to-image model
                       at a random strength (:func:`aimfair.study.pool.edited_faces`); None where there is none
    """

    seed: int
    device: str
    train: FaceSet
    validation: FaceSet
    balanced: FaceSet
    biased: FaceSet
    pretraining: Schedule
    finetuning: Schedule
    fresh_model: Callable[[], nn.Module]
    biased_model: Callable[[], nn.Module]
    gaps: Callable[[str, str], tuple[dict[str, float], dict[str, float]]]
    resume: Path | None = None
    shares: tuple[float, float, float, float] = (0.05, 0.45, 0.45, 0.05)
    pool: FaceSet | None = None
    edited: Callable[[int, float, float], FaceSet] | None = None

    def seen_by(self, method: Method) -> Bench:
        """The bench with every label removed that ``method`` did not declare, and every synthetic face.

        Raises AimfairError where the bench has none of what the method declares that it needs.
        """
        absent = {
            "train protected": self.train.protected is None,
            "validation protected": self.validation.protected is None,
            "synthetic": len(self.balanced) == 0,
        }
        for need in sorted(method.needs):
            if absent[need]:
                what = "synthetic faces" if need == "synthetic" else f"protected labels of {need.split()[0]} faces"
                raise AimfairError(f"{method.name} needs {what}, and this bench has none")
        train = self.train if "train protected" in method.needs else self.train.without_protected()
        validation = self.validation if "validation protected" in method.needs else self.validation.without_protected()
        seen = replace(self, train=train, validation=validation)
        if "synthetic" in method.needs:
            return seen
        nothing = self.balanced.subset([])
        return replace(seen, balanced=nothing, biased=nothing, pool=None, edited=None)

    def resume_of(self, part: str) -> Path | None:
        """A checkpoint file of its own for one of several trainings of a method."""
        return self.resume and self.resume.with_name(f"{self.resume.stem}-{part}{self.resume.suffix}")


@dataclass
class Fitted:
    """A trained classifier and what is worth keeping beside its predictions (mask, curves, notes)."""

    model: nn.Module
    history: History
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A method's declaration; see :data:`NEEDS` for ``needs``, and ``start`` is "scratch" or "biased model".

    fixed    settings that have one value and are part of a run's identity, as published runs have them
    options  further hyper-parameters and their usual values. An option that has its usual value is left out of
             :meth:`hyper` and so of a run's identity: a new option does not change the ids of older runs
    beyond   an extension of this book, which the paper's tables of all methods leave out
    """

    name: str
    title: str
    source: str
    start: str
    fit: Callable[[Bench, Mapping[str, Any]], Fitted]
    needs: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    beyond: bool = False

    @property
    def is_oracle(self) -> bool:
        """Whether it reads the protected label of a real face."""
        return bool(self.needs - {"synthetic"})

    @property
    def extra_data(self) -> str:
        """What it is given beyond real faces and their targets, in words; "nothing" where that is all."""
        splits = ", ".join(need.split()[0] for need in sorted(self.needs) if "protected" in need)
        labels = [f"group labels ({splits})"] if splits else []
        return "; ".join(["synthetic faces"] * ("synthetic" in self.needs) + labels) or "nothing"

    @property
    def usual(self) -> dict[str, Any]:
        """Every hyper-parameter and its usual value, options and fixed ones included."""
        return {**self.defaults, **self.options, **self.fixed}

    def hyper(self, **given: Any) -> dict[str, Any]:
        """Defaults overridden by ``given``, without the options that have their usual value.

        Raises AimfairError for a name that the method does not have and for a value that cannot be meant: of another kind
        than the usual one (where that is whole, so must it be), not finite, or a learning rate or ``k`` that is not above 0.
        """
        for name in given:
            if name not in self.usual:
                known = ", ".join(self.usual) or "none"
                raise AimfairError(f"{self.name} has no hyper-parameter {name!r}; it has: {known}")
        checked = {name: self._checked(name, value) for name, value in given.items()}
        values = {**self.defaults, **self.fixed, **checked}
        usual = self.options.items()
        return {name: value for name, value in values.items() if (name, value) not in usual}

    def _checked(self, name: str, value: Any) -> Any:
        usual = self.usual[name]
        if name in self.fixed:
            if value == usual or str(value).lower() == usual:  # a command line reads the word "true" as a truth value
                return usual
            raise AimfairError(f"{self.name}: {name} must be {usual}, the only value that it has here, got {value!r}")
        if value is None and usual is None:
            return value
        kind, wanted = {
            str: (str, f"text, such as {usual}"),
            bool: (bool, f"true or false, such as {usual}"),
            int: (int, "a whole number"),
        }.get(type(usual), ((int, float), "a number"))
        fits = isinstance(value, kind) and isinstance(value, bool) == isinstance(usual, bool)
        if fits and kind not in (str, bool):
            positive = name == "k" or name.endswith("lr")
            wanted = "above 0" if math.isfinite(value) and positive else "a finite number"
            fits = math.isfinite(value) and (value > 0 or not positive)
        if not fits:
            raise AimfairError(f"{self.name}: {name} must be {wanted}, got {value!r}")
        return value


def folders() -> list[Path]:
    """Where methods outside the library are found: ``notebooks/methods`` of the checkout, then those that the environment
    variable ``AIMFAIR_METHODS`` lists, separated as in ``PATH``. Raises AimfairError for a listed folder that is not there.
    """
    found = []
    with suppress(AimfairError):  # an installed package has no checkout
        found = [folder for folder in [home() / "notebooks" / "methods"] if folder.is_dir()]
    for listed in filter(None, os.environ.get("AIMFAIR_METHODS", "").split(os.pathsep)):
        if not resolve(listed).is_dir():
            raise AimfairError(f"AIMFAIR_METHODS names {listed}, and there is no such folder")
        found.append(resolve(listed))
    return list(dict.fromkeys(folder.resolve() for folder in found))  # each once


def modules() -> tuple[ModuleType, ...]:
    """The module of every file of this folder and of :func:`folders` whose name does not begin with an underscore.

    Raises AimfairError, naming the file, for one that cannot be imported or has the name of another.
    """
    # Files of the other folders, too, are modules aimfair.methods.NAME: by that name they are imported.
    __path__[1:] = [str(folder) for folder in folders()]
    files: dict[str, Path] = {}
    found = []
    for folder in __path__:
        for _, name, _ in pkgutil.iter_modules([folder]):
            file = Path(folder, f"{name}.py")
            if name in files:
                raise AimfairError(f"{file} has the name of {files[name]}: rename one of them")
            files[name] = file
            if name.startswith("_"):
                continue
            try:
                found.append(importlib.import_module(f"{__name__}.{name}"))
            except Exception as error:
                raise AimfairError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    return tuple(found)


@cache
def registry() -> dict[str, Method]:
    """Every method by name, in the order of the tables: from scratch, fine-tuning, oracles; each group by name.

    Raises AimfairError, naming the file, for one whose declaration is at fault.
    """
    methods: list[Method] = []
    for module in modules():
        declared: tuple[Any, ...] = getattr(module, "METHODS", None) or (getattr(module, "METHOD", None),)
        if declared == (None,) and hasattr(module, "MEASUREMENTS"):  # see aimfair.study.measurements
            continue
        for method in declared:
            if fault := _fault(method, methods):
                raise AimfairError(f"{module.__file__}: {fault}")
            methods.append(method)
    methods.sort(key=lambda m: (m.is_oracle, m.start != "scratch", "synthetic" in m.needs, m.name))
    return {method.name: method for method in methods}


def _fault(method: object, others: list[Method]) -> str:
    """What is wrong with a declaration, "" where nothing is."""
    if not isinstance(method, Method):
        return "declares no METHOD; a file that is no method has a name that begins with _"
    if unknown := method.needs - set(NEEDS):
        return f"declares the unknown need {min(unknown)!r}; known are: {', '.join(NEEDS)}"
    if method.is_oracle != method.title.endswith("(oracle)"):
        return "the title of a method ends in (oracle) if it reads group labels, and only then"
    for other in others:
        if method.name == other.name or method.title == other.title:
            return f"has the name or title of another method, {other.name}: give it its own"
    return ""


def get(name: str) -> Method:
    """The method called ``name``. Raises AimfairError, listing all, for a name that no file registers."""
    if name not in registry():
        raise AimfairError(f"no method {name!r}; there are: {', '.join(registry())}")
    return registry()[name]


with suppress(AimfairError):  # whoever asks for the methods is told of a folder that is not there
    __path__ += [str(folder) for folder in folders()]
