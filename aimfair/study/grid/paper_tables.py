"""What the tables and figures of the paper consist of: one function each says it for a profile.

In the order in which the paper prints them. The profile decides which faces: one on FaceWorld stands for all tasks of the
paper, one on photographs for its own. Where a row of the paper is not here, the library has nothing yet that would run it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from aimfair import methods, prompts
from aimfair.environment import AimfairError
from aimfair.methods._partial import BLOCKS
from aimfair.study.grid.experiments import GAPS, MAPS, Experiment, Row, Settings, crossed, lines, own, trained
from aimfair.study.profiles import Profile

PRINTED = ("erm", "cvar-dro", "eiil", "lff", "jtt", "maple", "diga", "full-finetuning", "aim-fair")
"""The methods of the paper's Tables 1 and 2, and full fine-tuning, this book's own comparison: all rows of what is
thinned, see :func:`at_defaults`."""

STRATEGIES = (
    *("erm", "synthetic-only", "supplementation", "repairing", "linear-probing", "full-finetuning", "lora"),
    *("ltgc-mixing", "aim-fair"),
)
"""The methods of Tables 3, 8 and 9: ways to train with real and synthetic faces together."""


def selected(profile: Profile, tables: Sequence[int] = (), figures: Sequence[int] = ()) -> list[Experiment]:
    """The tables and figures with these numbers, or all where none is named. Raises AimfairError for one that is not here."""
    there = {experiment.name: experiment for experiment in (make(profile) for make in ALL)}
    wanted = [f"Table {n}" for n in tables] + [f"Figure {n}" for n in figures]
    for name in wanted:
        if name not in there:
            raise AimfairError(f"{name} has no runs; there are: {', '.join(there)}")
    return [there[name] for name in wanted or there]


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
    others = [
        m.name
        for m in methods.registry().values()
        if m.name == "aim-fair" or (not m.beyond and m.name not in STRATEGIES and (m.is_oracle or m.start == "scratch"))
    ]
    return ["erm", *others]


def partial() -> list[str]:
    """What the chapter on partial fine-tuning compares beside full fine-tuning and AIM-Fair: every other method that goes on
    from the biased model, is told no group and is none of :data:`STRATEGIES`. A new one appears by itself."""
    return [
        m.name
        for m in methods.registry().values()
        if not (m.beyond or m.is_oracle or m.start == "scratch" or m.name in STRATEGIES)
    ]


def at_defaults(*settings: str) -> list[Row]:
    """Each of :data:`PRINTED` at the defaults of its file, nothing searched: how Tables 1 and 2 are thinned.

    Every method with its whole search, in two further tasks and three sizes, would be five times the runs of the
    study's own task: on ``demo`` with ten seeds 2,880, where all else in the study has about 1,650. So the own task has
    all methods with their whole search (576 runs), and these settings have one configuration of each method that the
    paper lists (450 runs). It is the method's default, for all alike: written down in its file before any run, without
    a look at a result, and the middle of what is searched for all but LfF (whose default is its source's). What wins on
    the own task is not carried over: a method whose best value moves with the size or the task would be blamed for it.
    The price: these settings compare methods as they come, not at their best. Whoever wants the whole search makes the
    setting a study of its own: ``aimfair grid run --table 1 --profile demo-smiling-young``, or ``-p train_images=2000``.

    settings  where the rows stand; none named: everywhere
    """
    chosen = [methods.get(name) for name in PRINTED]
    return [Row(m.title, m.name, {name: m.defaults[name] for name in m.search}, settings=settings) for m in chosen]


AMOUNTS = {0.5: "half as many", 1.0: "as many", 1.5: "1.5 times as many", 2.0: "twice as many"}
"""Synthetic faces that AIM-Fair is fine-tuned on, as multiples of the real ones, in words."""


def amounts(p: Profile) -> list[Row]:
    """AIM-Fair with more and fewer synthetic faces, drawn from the profile's pool; from a larger one where that is too
    small, which begins with the same faces."""

    def changes(ratio: float) -> dict[str, Any]:
        needed = int(ratio * p.train_images) // 4
        larger = {"images_per_group": needed} if needed > p.images_per_group else {}
        return ({} if ratio == 1 else {"synthetic_ratio": ratio}) | larger

    return [Row(f"AIM-Fair, {words}", "aim-fair", changes=changes(ratio)) for ratio, words in AMOUNTS.items()]


RATIOS = {"4:6": 4 / 6, "3:7": 3 / 7, "2:8": 2 / 8, "1:9": 1 / 9}
"""Ratios of minority to majority that are assumed of the biased synthetic set, as the paper writes them."""


def assumptions(p: Profile) -> list[Row]:
    """AIM-Fair with a biased synthetic set of other group shares. The true ratio is no change."""
    return [
        Row(f"AIM-Fair, {name}", "aim-fair", changes={} if ratio == p.minority else {"assumed_minority": ratio})
        for name, ratio in RATIOS.items()
    ]


def vision_transformer(p: Profile) -> dict[str, Any] | None:
    """The changes that make the classifier a ViT of the profile's image size; None where there is no such ViT."""
    known: dict[int, dict[str, Any]] = {
        64: {
            "backbone": "vit-slim",
            "pretrain_lr": 0.01,
            "batch_size": 32,
            **trained(p, 3),
        },  # see aimfair.vit.vit_slim
        224: {"backbone": "vit-s-32"},
    }
    return known.get(p.image_size)


def table_1(p: Profile) -> Experiment:
    """Section 4.4. All methods on the profile's own task, further tasks by :func:`at_defaults`."""
    settings = tasks(p, "Smiling / Male", "Smiling / Young", "Young / Male")
    mine = tuple(label for label in settings if label in own(p))
    further = tuple(label for label in settings if label not in mine)
    rows = [replace(row, settings=mine) for row in every_method()] if mine else []
    return Experiment("Table 1", "All methods, by task", settings, rows + (at_defaults(*further) if further else []))


def table_2(p: Profile) -> Experiment:
    """Section 4.4, by :func:`at_defaults`. The synthetic sets shrink with the real one; all of the faces is Table 1."""
    settings = {
        f"{share:.0%} of the faces": {"train_images": round(share * p.train_images)} for share in (0.5, 0.25, 0.1)
    }
    return Experiment("Table 2", "Methods at their defaults, by size of the training set", settings, at_defaults())


def table_3(p: Profile) -> Experiment:
    """Section 4.5. UTKFace is a profile of its own. This is the table with ten seeds for photographs, too."""
    rows = lines(
        "erm", "synthetic-only", "supplementation", "repairing", "linear-probing", "full-finetuning", "aim-fair"
    )
    at_least = 0 if p.dataset == "faceworld" else 10
    return Experiment("Table 3", "Training strategies", tasks(p, "Smiling / Male", "Smiling / Young"), rows, at_least)


def table_4(p: Profile) -> Experiment:
    """Section 4.5. The paper shows the best share and the best block; here each share is a row, and a block is chosen
    within the training, by a short profile on the validation faces."""
    rows = [
        *(Row(f"Random selection, {ratio:.0%}", "random-ratio", {"ratio": ratio}) for ratio in (0.4, 0.55, 0.7, 0.85)),
        *lines("update-one-block", "freeze-one-block", "aim-fair-cosine", "aim-fair"),
    ]
    return Experiment("Table 4", "Partial fine-tuning", tasks(p, "Smiling / Male", "Smiling / Young"), rows)


def table_5(p: Profile) -> Experiment:
    """Section 4.5: how good are the synthetic faces as training data?"""
    variants = {
        "Plain prompt": "plain",
        "25 contextual prompts": "contextual-25",
        "50 contextual prompts": "no-pose",
        "50 contextual prompts with head poses": "contextual",
    }
    rows = [Row(title, "synthetic-only", changes={"prompts": variant}) for title, variant in variants.items()]
    return Experiment("Table 5", "Prompts", tasks(p, "Smiling / Male", "Smiling / Young"), rows)


def table_6(p: Profile) -> Experiment:
    """Section 4.5. What full fine-tuning does depends on no assumption."""
    return Experiment("Table 6", "Assumed bias ratio", own(p), lines("full-finetuning") + assumptions(p))


def table_7(p: Profile) -> Experiment:
    """Section 4.5."""
    return Experiment("Table 7", "Number of synthetic faces", own(p), amounts(p))


def table_8(p: Profile) -> Experiment:
    """Appendix 7."""
    vit = vision_transformer(p)
    settings = {} if vit is None else crossed(tasks(p, "Smiling / Male", "Smiling / Young"), **vit)
    rows = lines("erm", "synthetic-only", "supplementation", "full-finetuning", "lora", "ltgc-mixing", "aim-fair")
    return Experiment("Table 8", "Training strategies with a vision transformer", settings, rows)


def table_9(p: Profile) -> Experiment:
    """Appendix 7."""
    return Experiment("Table 9", "Mixing real and synthetic faces", own(p), lines("erm", "ltgc-mixing", "aim-fair"))


def table_10(p: Profile) -> Experiment:
    """Appendix 7: Table 7 on UTKFace, with the baseline."""
    return Experiment("Table 10", "Number of synthetic faces, with the baseline", own(p), lines("erm") + amounts(p))


def table_11(p: Profile) -> Experiment:
    """Appendix 9: the biased model is already good."""
    task = "Male / Young"
    settings = {label: changed for label, changed in tasks(p, task).items() if label == task}
    return Experiment("Table 11", "A task with little bias", settings, lines("erm", "full-finetuning", "aim-fair"))


def figure_1(p: Profile) -> Experiment:
    """Accuracy against fairness of the strategies."""
    rows = lines("erm", "synthetic-only", "supplementation", "repairing", "full-finetuning", "aim-fair")
    return Experiment("Figure 1", "Accuracy and fairness", own(p), rows)


def figure_2(p: Profile) -> Experiment:
    """One block frozen, the rest fine-tuned; beside it everything frozen and nothing frozen."""
    frozen = [Row(f"{block} frozen", "freeze-one-block", {"block": block}) for block in BLOCKS]
    return Experiment("Figure 2", "Layer-wise freezing", own(p), lines("erm", "full-finetuning") + frozen)


def figure_5(p: Profile) -> Experiment:
    """Top-k, counted on the 62 tensors of ResNet-18."""
    rows = [Row(f"AIM-Fair, k = {k}", "aim-fair", {"k": k}) for k in (40, 45, 50, 55, 60)]
    return Experiment("Figure 5", "Top-k", own(p), rows)


def figure_6(p: Profile) -> Experiment:
    """Features of a model trained on real faces, on real and synthetic ones, and of AIM-Fair; and of no training."""
    of = ("untrained", "erm", "supplementation", "aim-fair")
    maps = [Row(f"Map of the features, {name}", MAPS, {"of": name}) for name in of]
    return Experiment("Figure 6", "Learned features", own(p), lines(*of[1:]) + maps)


def figure_8(p: Profile) -> Experiment:
    """Which layers are selected: any k follows from the gradient gaps."""
    settings = tasks(p, "Smiling / Male", "Smiling / Young")
    return Experiment("Figure 8", "Distribution of the mask", settings, [Row("Gradient gaps", GAPS)])


ALL: tuple[Callable[[Profile], Experiment], ...] = (
    table_1,
    table_2,
    table_3,
    table_4,
    table_5,
    table_6,
    table_7,
    table_8,
    table_9,
    table_10,
    table_11,
    figure_1,
    figure_2,
    figure_5,
    figure_6,
    figure_8,
)
