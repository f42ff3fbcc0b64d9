"""Profiles: one flat YAML file each, valid for stock papermill, checked before anything is trained."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from aimfair import datasets
from aimfair.audit import selection
from aimfair.environment import AimfairError, home
from aimfair.generate import presets
from aimfair.models import BACKBONES, IMAGE_SIZES
from aimfair.prompts import VARIANTS
from aimfair.training import Schedule

SEEDS = tuple(range(100, 1100, 100))
"""The ten seeds of the paper."""

MAIN = "demo"
"""The profile that the book's main chapters show; other profiles have a folder of their own."""

SELECTION = ("selection", "selected_per_group")
"""Fields of :class:`Profile` that decide nothing where no rule selects."""

SYNTHETIC = (
    *("generator", "prompts", "images_per_group", "steps", "guidance", "draw"),
    *SELECTION,
    *("assumed_minority", "synthetic_ratio"),
)
"""Fields of :class:`Profile` that decide nothing for a method that is given no synthetic face."""

COMMON = {"profile": str, "seed": int, "device": str, "data_root": str, "runs_root": str, "reuse": bool}
"""Parameters that every notebook declares; the fields of :class:`Profile` may be given beside them."""


@dataclass(frozen=True)
class Profile:
    """Everything that decides the numbers of a study, apart from the seed. Flat, so that papermill can set each.

    dataset, target, protected   which faces, which task
    train_images, minority       size of the biased training set; minority : majority ratio (the paper: 1/9)
    validation_images            0: the data set's whole validation split
    generator                    a text-to-image pipeline: folder, hub name, or name of a preset (:mod:`aimfair.generate.presets`), which
                                 brings its own steps and guidance; or "folder:PATH" for images made elsewhere
    corpus, generator_minutes    data set (and CPU minutes) on which a tiny generator is trained if its folder below data/ is
                                 missing; and on which the audit's judge learns
    images_per_group             size of the synthetic pool; each seed draws its balanced and biased set from it
    draw                         which draw of the pool: another number gives every image another seed
    prompts                      variant of the prompt bank: contextual, contextual-25, no-pose, plain; "contextual@mine" is
                                 that of the bank "<Target>_<Protected>@mine"
    selection                    none, or the rule of :mod:`aimfair.audit.selection` by which each seed chooses from the pool
    selected_per_group           how many faces of each group it chooses; 0: half of images_per_group
    assumed_minority             what methods that must know minority take for it (Table 6); 0: what it is
    synthetic_ratio              size of each seed's balanced synthetic set as a multiple of train_images (Table 7)
    pretrain_*, finetune_*       schedules (training.Schedule); the fine-tuning rate is a method's hyper-parameter
    seeds                        how many of the seeds 100, 200, ... the profile's tables use
    """

    profile: str
    dataset: str = "faceworld"
    target: str = "Smiling"
    protected: str = "Male"
    image_size: int = 64
    train_images: int = 4000
    minority: float = 1 / 9
    validation_images: int = 0
    split: str = "official"
    generator: str = "data/tiny-sd/faceworld"
    corpus: str = ""
    corpus_root: str = ""
    generator_minutes: float = 45.0
    prompts: str = "contextual"
    images_per_group: int = 2000
    steps: int = 8
    guidance: float = 4.0
    backbone: str = "resnet18-slim"
    weights: str = "scratch"
    crop_scale_min: float = 0.08
    batch_size: int = 128
    pretrain_epochs: int = 15
    pretrain_lr: float = 0.01
    pretrain_decay_at: int = 10
    finetune_epochs: int = 10
    seeds: int = 10
    selection: str = "none"
    selected_per_group: int = 0
    assumed_minority: float = 0.0
    synthetic_ratio: float = 1.0
    draw: int = 0

    def __post_init__(self) -> None:
        checks = {
            "dataset": (self.dataset in datasets.available(), f"one of {', '.join(datasets.available())}"),
            "backbone": (self.backbone in BACKBONES, f"one of {', '.join(BACKBONES)}"),
            "split": (
                self.split in ("official", "identities", "balanced-test"),
                "official, identities or balanced-test",
            ),
            "prompts": (self.prompts.partition("@")[0] in VARIANTS, f"one of {', '.join(VARIANTS)}"),
            "selection": (
                self.selection in ("none", *selection.RULES),
                f"none or one of {', '.join(selection.RULES)}",
            ),
            "selected_per_group": (
                0 <= self.selected_per_group <= self.images_per_group,
                f"between 0 and images_per_group ({self.images_per_group})",
            ),
            "minority": (0 < self.minority <= 1, "a ratio above 0, at most 1"),
            "assumed_minority": (0 <= self.assumed_minority <= 1, "a ratio, at most 1, or 0 for the true one"),
            "crop_scale_min": (0 < self.crop_scale_min <= 1, "a share above 0, at most 1"),
            "image_size": (8 <= self.image_size <= 1024, "between 8 and 1024 pixels"),
            "seeds": (1 <= self.seeds <= 100, "between 1 and 100"),
            "draw": (self.draw >= 0, "0 or more"),
            "target": (self.target != self.protected, "another attribute than protected"),
        }
        if self.backbone in IMAGE_SIZES:
            size = IMAGE_SIZES[self.backbone]
            checks["image_size"] = (self.image_size == size, f"{size} for {self.backbone}")
        positive = (
            "train_images",
            "images_per_group",
            "steps",
            "batch_size",
            "pretrain_epochs",
            "finetune_epochs",
            "pretrain_lr",
            "synthetic_ratio",
        )
        checks |= {name: (getattr(self, name) > 0, "above 0") for name in positive}
        endless = [name for name, value in vars(self).items() if isinstance(value, float) and not math.isfinite(value)]
        checks |= dict.fromkeys(endless, (False, "a finite number"))
        for name, (good, allowed) in checks.items():
            if not good:
                raise AimfairError(f"profile {self.profile}: {name} must be {allowed}, got {getattr(self, name)!r}")

    @property
    def task(self) -> str:
        """``Target_Protected``, as in the names of folders and prompt banks."""
        return f"{self.target}_{self.protected}"

    def shares(self) -> tuple[float, float, float, float]:
        """Share of each group in the biased sets, as it is assumed: two minorities at the diagonal, two majorities off it."""
        ratio = self.assumed_minority or self.minority
        small = ratio / (1 + ratio) / 2
        return (small, 0.5 - small, 0.5 - small, small)

    def pretraining(self) -> Schedule:
        """The schedule of ERM and of every other training from scratch."""
        return Schedule(
            epochs=self.pretrain_epochs,
            lr=self.pretrain_lr,
            batch_size=self.batch_size,
            milestones=(self.pretrain_decay_at,),
            crop_scale=(self.crop_scale_min, 1.0),
        )

    def finetuning(self) -> Schedule:
        """The schedule of every fine-tuning: constant rate (set by the method), first best epoch."""
        return replace(self.pretraining(), epochs=self.finetune_epochs, milestones=(), ties="first")

    def settings(self) -> dict[str, Any]:
        """What identifies the study's numbers: all fields but those that only say where things are or how many.

        Fields that change nothing are left out too: those about selection where nothing is selected from the pool, an
        assumed ratio that is the true one, as many synthetic faces as real ones, the first draw of the pool.
        """
        beside = ["profile", "seeds", "corpus", "corpus_root", "generator_minutes", *SELECTION]
        beside += ["assumed_minority"] * (self.assumed_minority in (0, self.minority))
        beside += ["synthetic_ratio"] * (self.synthetic_ratio == 1)
        beside += ["draw"] * (self.draw == 0)
        chosen = {} if self.selection == "none" else dict(zip(SELECTION, (self.selection, self.budget()), strict=True))
        return {k: v for k, v in asdict(self).items() if k not in beside} | chosen

    def budget(self) -> int:
        """Synthetic faces of each group that are there to be drawn from."""
        if self.selection == "none":
            return self.images_per_group
        return self.selected_per_group or max(1, self.images_per_group // 2)


FIELDS: dict[str, Any] = typing.get_type_hints(Profile)


def folder() -> Path:
    """Where the profiles lie: ``notebooks/profiles``."""
    return home() / "notebooks" / "profiles"


def available() -> list[str]:
    """Names of all profiles."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def load(name: str, **changes: Any) -> Profile:
    """The profile ``name`` (or the path of a YAML file), with fields overridden by ``changes``.

    A preset that file or ``changes`` name as generator brings its own steps and guidance, unless the same place gives them.

    Raises AimfairError that names the key and what is allowed: unknown key, wrong type, impossible value.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder() / f"{name}.yaml"
    if not path.exists():
        raise AimfairError(f"no profile {name!r}; there are: {', '.join(available())}, or give the path of a YAML file")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise AimfairError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise AimfairError(f"{path} must hold one flat mapping of names to values")
    own = {k: v for k, v in content.items() if k not in COMMON or k == "profile"}
    values = with_preset(own) | with_preset(changes)
    for key, value in values.items():
        values[key] = _checked(key, value, FIELDS.get(key), path.name)
    settings: dict[str, Any] = {"profile": path.stem} | values
    return Profile(**settings)


def from_parameters(variables: Mapping[str, Any]) -> tuple[Profile, dict[str, Any]]:
    """Profile and common parameters out of a notebook's variables, however they were set.

    A notebook calls this with ``globals()`` right after its imports. Fields of the profile that papermill injected
    (``-p train_images 2000``, or a whole file with ``-f``) override the profile's file. Every simple variable must be a
    common parameter, a field of the profile, or one that the notebook declares with an annotation: anything else is
    a misspelt parameter, which papermill itself would only mention in its log.
    """
    declared = variables.get("__annotations__", {})
    simple = {
        name: value
        for name, value in variables.items()
        if not name.startswith("_")
        and isinstance(value, (str, int, float, list, dict, type(None)))
        and name not in ("In", "Out")
    }
    for name, value in simple.items():
        if name not in COMMON and name not in FIELDS and name not in declared:
            allowed = ", ".join(
                [*COMMON, *(d for d in declared if d not in COMMON), *(f for f in FIELDS if f != "profile")]
            )
            raise AimfairError(f"unknown parameter {name!r}; allowed are: {allowed}")
        expected = COMMON.get(name)
        if expected is not None:
            _checked(name, value, expected, "the notebook's parameters")
    common: dict[str, Any] = {name: simple[name] for name in COMMON if name in simple}
    changes = {name: value for name, value in simple.items() if name in FIELDS and name not in COMMON}
    return load(common.get("profile", "demo"), **changes), common


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, and the steps and guidance of the preset that it names as generator where it gives none."""
    preset = presets.find(given.get("generator", ""))
    own = {"steps": preset.steps, "guidance": preset.guidance} if preset.steps else {}
    return own | dict(given)


def _checked(key: str, value: Any, expected: Any, where: str) -> Any:
    if expected is None:
        raise AimfairError(
            f"{where}: unknown key {key!r}; allowed are: {', '.join([*FIELDS, *(c for c in COMMON if c not in FIELDS)])}"
        )
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (isinstance(value, bool) and expected is not bool) or not isinstance(value, expected):
        shown = expected.__name__ if not isinstance(expected, types.UnionType) else str(expected)
        raise AimfairError(f"{where}: {key} must be {shown}, got {value!r} ({type(value).__name__})")
    return value
