"""Every way to train a classifier that this book compares. One file each; the registry finds the files.

A method is a function ``fit(bench, hyper) -> Fitted`` and a declaration: what it is told about groups, what it
starts from, its default hyper-parameters and where to search. To add one, copy a file of this folder, change
it, and it appears in ``aimfair run``, in the tables and in the automatic test.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.training import History, Schedule

NEEDS = ("train protected", "validation protected", "synthetic")
"""What a method may declare that it must be given, beyond real images with target labels."""

LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""The one grid that every fine-tuning method searches, wide enough that no winner sits on its edge."""

CHECKPOINT_RULE = {"select": "validation-accuracy"}
"""The ``options`` of every fine-tuning method: which epoch is kept, see :class:`aimfair.training.Schedule`."""


@dataclass(frozen=True)
class Bench:
    """All that one seed shares, so that methods are compared like with like.

    train, validation  real faces, biased and natural; protected labels are withheld from methods that did not ask
    balanced, biased   synthetic faces drawn for this seed: equal groups, and groups in ``shares``
    fresh_model        an untrained classifier, the same for every method of the seed
    biased_model       a copy of the classifier trained by ERM on ``train``
    gaps               (score, "train" or "eval") -> (domain_gap, bias_gap) of the biased model's gradients, per tensor
    shares             of the four groups of ``train``, as the study assumes them: prior knowledge, no label is read
    pool               all synthetic faces, of which ``balanced`` and ``biased`` are drawn; None where there are no more
    edited             (draw, weakest, strongest) -> ``train`` in its order, each face redrawn by the text-to-image model
                       at a random strength (:func:`aimfair.generate.editing.edited`); None where there is none
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
        lacking = {
            "train protected": self.train.protected is None,
            "validation protected": self.validation.protected is None,
            "synthetic": len(self.balanced) == 0,
        }
        for need in sorted(method.needs):
            if lacking[need]:
                what = "synthetic faces" if need == "synthetic" else f"protected labels of {need.split()[0]} faces"
                raise AimfairError(f"{method.name} needs {what}, and this bench has none")
        train = self.train if "train protected" in method.needs else self.train.without_protected()
        told = "validation protected" in method.needs
        seen = replace(self, train=train, validation=self.validation if told else self.validation.without_protected())
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

    options  further hyper-parameters and their usual values. One with its usual value is left out of ``hyper``, and so of
             a run's identity: what is made variable here changes no id of the runs that were there before
    beyond   an extension of this book: the paper's tables of all methods leave it out, :mod:`aimfair.study.grid.beyond` has it
    """

    name: str
    title: str
    source: str
    start: str
    fit: Callable[[Bench, Mapping[str, Any]], Fitted]
    needs: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    beyond: bool = False

    @property
    def is_oracle(self) -> bool:
        """Whether it is told the protected label of a real face."""
        return bool(self.needs - {"synthetic"})

    @property
    def told(self) -> str:
        """What it is told beyond real faces and their targets, in words; "nothing" where that is all."""
        splits = ", ".join(need.split()[0] for need in sorted(self.needs) if "protected" in need)
        labels = [f"group labels ({splits})"] if splits else []
        return "; ".join(["synthetic faces"] * ("synthetic" in self.needs) + labels) or "nothing"

    @property
    def usual(self) -> dict[str, Any]:
        """Every hyper-parameter and its usual value, also of those that a run's identity names only where they differ."""
        return {**self.defaults, **self.options}

    def hyper(self, **given: Any) -> dict[str, Any]:
        """Defaults overridden by ``given``, without the options that have their usual value.

        Raises AimfairError for a name that the method does not have.
        """
        for name in given:
            if name not in self.usual:
                known = ", ".join(self.usual) or "none"
                raise AimfairError(f"{self.name} has no hyper-parameter {name!r}; it has: {known}")
        left_out = self.options.items()
        return {name: value for name, value in {**self.defaults, **given}.items() if (name, value) not in left_out}


@cache
def registry() -> dict[str, Method]:
    """Every method by name, in the order of the tables: from scratch, fine-tuning, oracles; each by name.

    A module declares one ``METHOD``, or those of a family as a tuple ``METHODS``.
    """
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__) if m.name[0] != "_"
    ]
    methods: list[Method] = []
    for module in modules:
        file = f"aimfair/methods/{module.__name__.rpartition('.')[2]}.py"
        for method in getattr(module, "METHODS", (getattr(module, "METHOD", None),)):
            if not isinstance(method, Method):
                raise AimfairError(f"{file} declares no METHOD; a file that is no method has a name that begins with _")
            for other in methods:
                if method.name == other.name or method.title == other.title:
                    raise AimfairError(f"{file} has the name or title of another method, {other.name}: give it its own")
            if unknown := method.needs - set(NEEDS):
                raise AimfairError(f"{file} declares the unknown need {min(unknown)!r}; known are: {', '.join(NEEDS)}")
            if method.is_oracle != method.title.endswith("(oracle)"):
                raise AimfairError(
                    f"{file}: the title of a method ends in (oracle) if it is told group labels, and only then"
                )
            methods.append(method)
    methods.sort(key=lambda m: (m.is_oracle, m.start != "scratch", "synthetic" in m.needs, m.name))
    return {method.name: method for method in methods}


def get(name: str) -> Method:
    """The method called ``name``. Raises AimfairError, listing all, for a name that no file registers."""
    if name not in registry():
        raise AimfairError(f"no method {name!r}; there are: {', '.join(registry())}")
    return registry()[name]
