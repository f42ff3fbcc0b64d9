"""The paper's tables and figures, and the experiments of the folder ``beyond``, as runs of a profile.

The profile decides which faces: one on FaceWorld stands for all tasks of the paper, one on photographs for its own. What
the paper shows and this library cannot run is not here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from aimfair import methods, prompts
from aimfair.environment import AimfairError, home
from aimfair.methods.blocks import BLOCKS
from aimfair.study.grid.experiments import GAPS, MAPS, Experiment, Row, Settings, lines, own, trained
from aimfair.study.profiles import Profile

PRINTED = ("erm", "cvar-dro", "eiil", "lff", "jtt", "maple", "diga", "full-finetuning", "aim-fair")
"""The methods of Tables 1 and 2, and full fine-tuning, this book's own comparison."""

STRATEGIES = (
    *("erm", "synthetic-only", "supplementation", "repairing", "linear-probing", "full-finetuning", "lora"),
    *("ltgc-mixing", "aim-fair"),
)
"""The methods of Tables 3, 8 and 9: ways to train with real and synthetic faces together."""

AMOUNTS = {0.5: "half as many", 1.0: "as many", 1.5: "1.5 times as many", 2.0: "twice as many"}
"""Synthetic faces that AIM-Fair is fine-tuned on, as multiples of the real ones, in words."""

RATIOS = {"4:6": 4 / 6, "3:7": 3 / 7, "2:8": 2 / 8, "1:9": 1 / 9}
"""Ratios of minority to majority that are assumed of the biased synthetic set, as the paper writes them."""

PROMPTS = {
    "Plain prompt": "plain",
    "25 contextual prompts": "contextual-25",
    "50 contextual prompts": "no-pose",
    "50 contextual prompts with head poses": "contextual",
}
"""The rows of Table 5 -> names of our prompt banks."""


def all_of(p: Profile) -> dict[str, Experiment]:
    """Every table and figure by name, such as "Table 3", in the order of the paper, for the profile ``p``.

    Tables 1 and 2 search every method on the profile's own task only. Their other tasks and sizes have each method of
    :data:`PRINTED` at the defaults of its file, which were written down before any run: to search everything there, too,
    would cost more than all other tables together. So these settings compare methods as they come, not at their best.
    Whoever wants the whole search makes such a setting a study of its own, such as ``--profile demo-smiling-young``.

    Table 4 shows each share of a random selection as a row, of which the paper prints the best; a block is chosen within
    the training. Table 3 has ten seeds for photographs, too. Table 10 is Table 7 on UTKFace, with the baseline.
    """
    mine, vit = own(p), vision_transformer(p)
    both = tasks(p, "Smiling / Male", "Smiling / Young")
    three = tasks(p, "Smiling / Male", "Smiling / Young", "Young / Male")
    further = tuple(label for label in three if label not in mine)
    whole = [replace(row, settings=tuple(mine)) for row in every_method()] if set(three) & set(mine) else []
    sizes = {f"{share:.0%} of the faces": {"train_images": round(share * p.train_images)} for share in (0.5, 0.25, 0.1)}
    shares = [Row(f"Random selection, {r:.0%}", "random-ratio", {"ratio": r}) for r in (0.4, 0.55, 0.7, 0.85)]
    amounts = [Row(f"AIM-Fair, {words}", "aim-fair", changes=amount(p, ratio)) for ratio, words in AMOUNTS.items()]
    assumed = [
        Row(f"AIM-Fair, {name}", "aim-fair", changes={} if ratio == p.minority else {"assumed_minority": ratio})
        for name, ratio in RATIOS.items()
    ]
    strategies = ("erm", "synthetic-only", "supplementation", "repairing")
    with_vit = lines("erm", "synthetic-only", "supplementation", "full-finetuning", "lora", "ltgc-mixing", "aim-fair")
    frozen = [Row(f"{block} frozen", "freeze-one-block", {"block": block}) for block in BLOCKS]
    features = ("untrained", "erm", "supplementation", "aim-fair")
    maps = [Row(f"Map of the features, {name}", MAPS, {"of": name}) for name in features]
    already_fair = {label: changes for label, changes in tasks(p, "Male / Young").items() if label == "Male / Young"}
    every = [
        Experiment("Table 1", "All methods, by task", three, whole + (_at_defaults(*further) if further else [])),
        Experiment("Table 2", "Methods at their defaults, by size of the training set", sizes, _at_defaults()),
        Experiment(
            "Table 3",
            "Training strategies",
            both,
            lines(*strategies, "linear-probing", "full-finetuning", "aim-fair"),
            at_least=0 if p.dataset == "faceworld" else 10,
        ),
        Experiment(
            "Table 4",
            "Partial fine-tuning",
            both,
            shares + lines("update-one-block", "freeze-one-block", "aim-fair-cosine", "aim-fair"),
        ),
        Experiment(
            "Table 5", "Prompts", both, [Row(t, "synthetic-only", changes={"prompts": v}) for t, v in PROMPTS.items()]
        ),
        Experiment("Table 6", "Assumed bias ratio", mine, lines("full-finetuning") + assumed),
        Experiment("Table 7", "Number of synthetic faces", mine, amounts),
        Experiment(
            "Table 8",
            "Training strategies with a vision transformer",
            {label: changes | vit for label, changes in both.items()} if vit else {},
            with_vit,
        ),
        Experiment("Table 9", "Mixing real and synthetic faces", mine, lines("erm", "ltgc-mixing", "aim-fair")),
        Experiment("Table 10", "Number of synthetic faces, with the baseline", mine, lines("erm") + amounts),
        Experiment("Table 11", "A task with little bias", already_fair, lines("erm", "full-finetuning", "aim-fair")),
        Experiment("Figure 1", "Accuracy and fairness", mine, lines(*strategies, "full-finetuning", "aim-fair")),
        Experiment("Figure 2", "Layer-wise freezing", mine, lines("erm", "full-finetuning") + frozen),
        Experiment(
            "Figure 5", "Top-k", mine, [Row(f"AIM-Fair, k = {k}", "aim-fair", {"k": k}) for k in range(40, 61, 5)]
        ),
        Experiment("Figure 6", "Learned features", mine, lines(*features[1:]) + maps),
        Experiment("Figure 8", "Distribution of the mask", both, [Row("Gradient gaps", GAPS)]),
    ]
    return {experiment.name: experiment for experiment in every}


def beyond(p: Profile) -> dict[str, Experiment]:
    """The experiments beyond the paper by name: what ``notebooks/beyond/experiments.py`` makes of the profile ``p``.

    Raises AimfairError where there is no such file.
    """
    path = home() / "notebooks" / "beyond" / "experiments.py"
    spec = importlib.util.spec_from_file_location("beyond.experiments", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise AimfairError(f"the experiments beyond the paper are not at {path}: run from a clone of the repository")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.all_of(p)


def select(known: Mapping[str, Experiment], names: Iterable[str] = ()) -> list[Experiment]:
    """The experiments with these names, or all where none is named. Raises AimfairError for one that is not known."""
    for name in names:
        if name not in known:
            raise AimfairError(f"there is no experiment {name!r} with runs; there are: {', '.join(known)}")
    return [known[name] for name in names or known]


def tasks(p: Profile, *wanted: str) -> Settings:
    """FaceWorld: each task "Target / Protected" for which there is a prompt bank. Photographs: the profile's own task.

    Another task is another study, published under a name of its own, because its runs predict other labels.
    """
    if p.dataset != "faceworld":
        return own(p)
    settings: Settings = {}
    for task in wanted:
        target, protected = task.split(" / ")
        if task in own(p):
            settings[task] = {}
        elif p.generator.startswith("folder:") or prompts.path_of(f"{p.dataset}/{target}_{protected}").exists():
            name = f"{p.profile}-{target}-{protected}".lower()
            settings[task] = {"target": target, "protected": protected, "profile": name}
    return settings


def every_method() -> list[Row]:
    """A row per registered method that is not marked as going beyond the paper: a new one appears by itself."""
    return lines(*(method.name for method in methods.registry().values() if not method.beyond))


def baselines() -> list[str]:
    """What the chapter on baselines compares: ERM, AIM-Fair, and every method that is told groups or learns from scratch
    and is none of :data:`STRATEGIES`. A new one appears by itself."""
    known = [m for m in methods.registry().values() if not m.beyond and m.name not in STRATEGIES]
    others = {m.name for m in known if m.is_oracle or m.start == "scratch"} | {"aim-fair"}
    return ["erm", *(name for name in methods.registry() if name in others)]


def partial() -> list[str]:
    """What the chapter on partial fine-tuning compares beside full fine-tuning and AIM-Fair: every other method that goes on
    from the biased model, is told no group and is none of :data:`STRATEGIES`. A new one appears by itself."""
    known = [m for m in methods.registry().values() if not m.beyond and m.name not in STRATEGIES]
    return [m.name for m in known if not m.is_oracle and m.start != "scratch"]


def amount(p: Profile, ratio: float) -> dict[str, Any]:
    """What has to change for ``ratio`` synthetic faces per real one. They are drawn from the profile's pool, or where that is
    too small from a larger one, which begins with the same faces."""
    needed = int(ratio * p.train_images) // 4
    larger = {"images_per_group": needed} if needed > p.images_per_group else {}
    return ({} if ratio == 1 else {"synthetic_ratio": ratio}) | larger


def vision_transformer(p: Profile) -> dict[str, Any] | None:
    """The changes that make the classifier a ViT of the profile's image size; None where there is no such ViT."""
    if p.image_size == 64:  # it needs more steps than the ResNet
        return {"backbone": "vit-slim", "pretrain_lr": 0.01, "batch_size": 32, **trained(p, 3)}
    return {"backbone": "vit-s-32"} if p.image_size == 224 else None


def _at_defaults(*settings: str) -> list[Row]:
    chosen = [methods.get(name) for name in PRINTED]
    return [Row(m.title, m.name, {name: m.defaults[name] for name in m.search}, settings=settings) for m in chosen]
