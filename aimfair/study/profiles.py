"""Profiles: one flat YAML file each, valid for stock papermill, checked before anything is trained."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from aimfair import datasets
from aimfair.audit import selection
from aimfair.environment import AimfairError, aside, home, reading
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

REAL = ("dataset", "target", "protected", "image_size", "train_images", "minority", "validation_images", "split")
"""Fields of :class:`Profile` that decide its real faces."""

COMMON = {"profile": str, "seed": int, "device": str, "data_root": str, "runs_root": str, "reuse": bool}
"""Parameters that every notebook declares; the fields of :class:`Profile` may be given beside them."""


if typing.TYPE_CHECKING:
    Dataset: typing.TypeAlias = str
    Backbone: typing.TypeAlias = str
    Split: typing.TypeAlias = str
    Rule: typing.TypeAlias = str
else:  # what there is, is found in folders
    Dataset, Backbone = Literal[tuple(datasets.available())], Literal[tuple(BACKBONES)]
    Split, Rule = Literal["official", "identities", "balanced-test"], Literal[("none", *selection.RULES)]
Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", validate_default=True))
class Profile:
    """Everything that decides the numbers of a study, apart from the seed. Flat, so that papermill can set each.

    dataset, target, protected   which faces, which task
    train_images, minority       size of the biased training set; minority : majority ratio (the paper: 1/9)
    validation_images            0: the data set's whole validation split
    generator                    a text-to-image pipeline: folder, hub name, or name of a preset, which brings its own steps
                                 and guidance (:mod:`aimfair.generate.presets`); or "folder:PATH" for images made elsewhere
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
    dataset: Dataset = "faceworld"
    target: str = "Smiling"
    protected: str = "Male"
    image_size: Annotated[int, Field(ge=8, le=1024)] = 64
    train_images: Count = 4000
    minority: Ratio = 1 / 9
    validation_images: Annotated[int, Field(ge=0)] = 0
    split: Split = "official"
    generator: str = "data/tiny-sd/faceworld"
    corpus: str = ""
    corpus_root: str = ""
    generator_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 45.0
    prompts: str = "contextual"
    images_per_group: Count = 2000
    steps: Count = 8
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4.0
    backbone: Backbone = "resnet18-slim"
    weights: str = "scratch"
    crop_scale_min: Ratio = 0.08
    batch_size: Count = 128
    pretrain_epochs: Count = 15
    pretrain_lr: Positive = 0.01
    pretrain_decay_at: int = 10
    pretrain_weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    finetune_epochs: Count = 10
    seeds: Annotated[int, Field(ge=1, le=100)] = 10
    selection: Rule = "none"
    selected_per_group: Annotated[int, Field(ge=0)] = 0
    assumed_minority: Annotated[float, Field(ge=0, le=1)] = 0.0
    synthetic_ratio: Positive = 1.0
    draw: Annotated[int, Field(ge=0)] = 0

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and FIELDS[str(info.field_name)] in (int, float):
            if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
                raise ValueError("must be a number")
            value = float(value)  # YAML takes 1e-3 for text
        if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError("must be text or a finite number")
        return value

    @field_validator("protected", "prompts", "backbone", "selected_per_group")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        """What a field may be beside those above it."""
        name, above = info.field_name, info.data
        if name == "protected" and value == above.get("target"):
            raise ValueError("must be another attribute than target")
        if name == "prompts" and value.partition("@")[0] not in VARIANTS:
            raise ValueError(f"must be one of {', '.join(VARIANTS)}")
        if name == "backbone" and IMAGE_SIZES.get(value) not in (None, above.get("image_size")):
            raise ValueError(f"needs image_size {IMAGE_SIZES[value]}")
        if name == "selected_per_group" and value > above.get("images_per_group", value):
            raise ValueError("must be at most images_per_group")
        return value

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
            weight_decay=self.pretrain_weight_decay,
            crop_scale=(self.crop_scale_min, 1.0),
        )

    def finetuning(self) -> Schedule:
        """The schedule of every fine-tuning: constant rate (set by the method), the official decay, first best epoch."""
        return replace(self.pretraining(), epochs=self.finetune_epochs, milestones=(), weight_decay=1e-4, ties="first")

    def settings(self) -> dict[str, Any]:
        """What identifies the study's numbers: all fields but those that only say where things are or how many.

        Fields that change nothing are left out too: those about selection where nothing is selected from the pool, an
        assumed ratio that is the true one, as many synthetic faces as real ones, the first draw of the pool, the official
        weight decay.
        """
        beside = ["profile", "seeds", "corpus", "corpus_root", "generator_minutes", *SELECTION]
        beside += ["assumed_minority"] * (self.assumed_minority in (0, self.minority))
        beside += ["synthetic_ratio"] * (self.synthetic_ratio == 1)
        beside += ["draw"] * (self.draw == 0)
        beside += ["pretrain_weight_decay"] * (self.pretrain_weight_decay == 1e-4)
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


def write_schema() -> Path:
    """Write the JSON schema by which editors check profiles, ``notebooks/profiles/schema.json``; returns its path."""
    schema = TypeAdapter(Profile).json_schema()
    schema.pop("required")  # the name of the file stands for the name of the profile
    path = folder() / "schema.json"
    with aside(path) as partial:
        partial.write_text(json.dumps(schema, indent=1) + "\n")
    return path


def load(name: str, **changes: Any) -> Profile:
    """The profile ``name`` (or the path of a YAML file), with fields overridden by ``changes``.

    A preset that file or ``changes`` name as generator brings its own steps and guidance, unless the same place gives them.

    Raises AimfairError with a line for each mistake: an unknown key, a wrong type, an impossible value.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder() / f"{name}.yaml"
    if not path.exists():
        raise AimfairError(f"no profile {name!r}; there are: {', '.join(available())}, or give the path of a YAML file")
    with reading(path, "mend it, as YAML in UTF-8"):
        text = path.read_text(encoding="utf-8-sig")
        content, tree = yaml.safe_load(text) or {}, yaml.compose(text)
    if not isinstance(content, dict):
        raise AimfairError(f"{path} must hold one flat mapping of names to values")
    own = {str(name): value for name, value in content.items()}  # YAML takes 1 and true for no text
    names = [key.value for key, _ in tree.value] if tree else []
    if twice := {name for name in names if names.count(name) > 1}:
        raise AimfairError(f"{path.name}: given twice: {', '.join(sorted(twice))}")
    if common := own.keys() & COMMON.keys() - {"profile"}:
        raise AimfairError(
            f"{path.name}: {', '.join(sorted(common))}: not of a profile, but of a run: options of the command line, "
            "parameters of a notebook"
        )
    values = {"profile": path.stem} | with_preset(own) | with_preset(changes)
    return _made(values, lambda name: "parameter" if name in changes else path.name)


def changed(profile: Profile, /, **changes: Any) -> Profile:
    """``profile`` with some fields changed; otherwise as :func:`load`."""
    return _made(asdict(profile) | with_preset(changes), lambda name: profile.profile)


def _made(values: Mapping[str, Any], place: Callable[[str], str]) -> Profile:
    try:
        return Profile(**values)
    except ValidationError as error:
        raise AimfairError(
            "\n".join(f"{place(str(each['loc'][0]))}: {_mistake(each)}" for each in error.errors())
        ) from error


def _mistake(error: Mapping[str, Any]) -> str:
    name = error["loc"][0]
    if error["type"] == "unexpected_keyword_argument":
        return f"unknown key {name!r}; allowed are: {', '.join(FIELDS)}"
    said = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{name} {said}, got {error['input']!r}"


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
        if name[0] != "_"
        and name not in ("In", "Out")
        and isinstance(value, str | int | float | list | dict | type(None))
    }
    for name, value in simple.items():
        if name not in {*COMMON, *FIELDS, *declared}:
            allowed = ", ".join(dict.fromkeys([*COMMON, *declared, *FIELDS]))
            raise AimfairError(f"unknown parameter {name!r}; allowed are: {allowed}")
        kind = COMMON.get(name, object)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise AimfairError(f"the notebook's parameter {name} must be {kind.__name__}, got {value!r}")
    common: dict[str, Any] = {name: simple[name] for name in COMMON if name in simple}
    changes = {name: value for name, value in simple.items() if name in FIELDS and name not in COMMON}
    return load(common.get("profile", "demo"), **changes), common


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """``given``, and the steps and guidance of the preset that it names as generator where it gives none."""
    preset = presets.find(given.get("generator", ""))
    own = {"steps": preset.steps, "guidance": preset.guidance} if preset.steps else {}
    return own | dict(given)
