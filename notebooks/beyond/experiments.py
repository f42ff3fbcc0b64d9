"""What the paper leaves open, as runs: experiments of the form of its tables, each with a name and a question.

Every row has the same budget: five values of what it searches, where it learns at all, one of them chosen on real
validation faces without a group label. Runs that a table of the paper has too are the same runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from aimfair import methods
from aimfair.audit import selection
from aimfair.methods.blocks import BLOCKS
from aimfair.paper.tables import PROMPTS
from aimfair.study import Study, open_study
from aimfair.study.grid.experiments import Experiment, Row, lines, own, trained
from aimfair.study.profiles import Profile

DRAWS = range(5)
"""Random masks that every selected mask is compared with."""

RATES = (0.003, 0.01)
"""Learning rates at which scores are compared with nothing searched: validation names one or the other of them."""

MASKS = {
    "all": ("All tensors", "full-finetuning"),
    "aim-fair": ("AIM-Fair", "aim-fair"),
    "random": ("Random mask", "random-mask"),
}
"""The word of ``batchnorm-real`` for a mask -> its title in the factorial, and the method that has it."""

CHECKPOINTS: dict[str, dict[str, Any]] = {"best": {}, "last": {"select": "last"}}
"""Which epoch is kept: the best on validation faces, as usual, or the last."""

TRAININGS = (
    "0.05 0.003 15",
    "0.05 0.003 45",
    "0.05 0.003 75",
    "0.05 0.001 45",
    "0.05 0.01 45",
    "0.02 0.003 45",
    "0.1 0.003 45",
)
"""Rate, weight decay and epochs that every method chooses from that trains from scratch: a centre, and a step from it in each
direction. 75 epochs make the paper's number of updates. A first search, around a decay of .01, had its winner at an edge."""

SCHEDULES = TRAININGS[1:3] + TRAININGS[4:6]
"""Those of them that every other method chooses from: ERM, whose seven include them, is at no disadvantage."""

SCHEDULE = TRAININGS[2]
"""The one that ERM chooses. Methods with a setting of their own search that setting with it, as many values as others have."""

DECAYS = (0.001, 0.003, 0.01, 0.03)
"""Weight decays from which oracles choose that train from scratch, on the schedule of ERM."""

RATES_FROM_ERM = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.06)
"""Rates that every method chooses from that goes on from ERM; .06 is that of the released script."""

PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "celeba-smiling-male": {
        "generator_minutes": 35.0
    },  # the generator of the runs of a longer trained baseline
    "utkface": {},
}
"""Profiles of photographs that a chapter looks at beside the main study, each with what differs from its file."""


def all_of(p: Profile) -> dict[str, Experiment]:
    """Every experiment by name."""
    core = lines("erm", "full-finetuning", "aim-fair")
    tuned = core[1:]
    twice = Row("ERM, twice the epochs", "erm", changes=trained(p, 2))
    made = {
        # The one grid of learning rates for all, random masks of AIM-Fair's size, and no selection at all: the baseline
        # trained for twice as long, because fine-tuning is longer training, too.
        "selection": (
            "Selection, full fine-tuning and random masks",
            [*core, *_draws("Random mask", "random-mask"), twice],
        ),
        # A baseline trained as long as a method that sees three images per face and epoch: is anything left to repair?
        "longer": ("A baseline that is trained longer", _longer(p, twice, tuned)),
        # Table 4 has the best block by a short profile, Figure 2 the frozen ones.
        "blocks": ("Every block in turn", core[:2] + _blocks()),
        # Compare rows to "AIM-Fair; statistics follow; best", which is the paper's.
        "factorial": (
            "Mask, batch-norm statistics and checkpoint rule",
            [*_no_weights(), *crossed().values()],
        ),
        # The ends, the interpolation as it is registered, and what its two fixed choices matter.
        "interpolation": (
            "Between the biased and the fine-tuned model",
            core + _interpolations(),
        ),
        # A part of the factorial, for those who ask about the statistics alone.
        "batchnorm": (
            "Batch-norm statistics of real faces, without labels",
            _real_statistics(core),
        ),
        # Channels and single weights, as many as AIM-Fair's tensors have, each beside random ones; and as large a share.
        "granularity": ("Tensors, channels or single weights", tuned + _finer()),
        # Scores that do not depend on the size of a tensor's gradients, and each of the two rankings alone: that by the
        # bias gap is all that is left to who knows no bias ratio to assume.
        "scores": ("Other scores, single rankings", _scores()),
        # Is it the score that wins, or the rate that was chosen for it?
        "rates": ("Scores at equal learning rates", _at(RATES, _scores())),
        # Table 5 has training on synthetic faces only.
        "prompts": ("AIM-Fair by prompts", _prompts()),
        # Faces chosen from the pool by each rule: trained on alone, half of the pool or an eighth, and given to AIM-Fair.
        "faithful": ("Which synthetic faces to take", _selected_faces(p)),
        # The book's own method beside the three that it is made of, each as it is registered.
        "combination": (
            "Edited and drawn faces, then tuning",
            lines(
                "erm", "diga", "supplementation", "aim-fair-cosine", "aim-fair", "edit-add-tune"
            ),
        ),
        # Groups guessed by what synthetic faces teach, beside guesses from errors, and each choice of the method undone.
        "taught": ("Groups taught by synthetic faces", _taught(p)),
        # Every method that is marked as going beyond the paper: a new one appears by itself.
        "extensions": (
            "All extensions",
            core + lines(*(m.name for m in methods.registry().values() if m.beyond)),
        ),
    }
    # The first search of ERM, which had its winner at an edge, and a schedule that is longer than the paper's.
    edges = ("0.02 0.01 45", "0.1 0.01 45", "0.05 0.03 45", "0.05 0.01 75", "0.05 0.003 105")
    wider = Row("ERM, wider search", "erm", among={"training": (*TRAININGS, *edges)}, first=3)
    made["baseline"] = ("ERM, its schedule searched", [_from_scratch("erm"), wider])
    made["main"] = ("The main study: all methods from one baseline", _main())
    return {name: Experiment(name, title, own(p), rows) for name, (title, rows) in made.items()}


def _main() -> list[Row]:
    """Every method with its own search, the most telling rows first: whoever stops the grid early has those.

    The first rows have ten seeds. The others have three: they show a direction, and get no verdict.
    """
    ways = (True, False)  # whether batch-norm statistics are kept is part of a row's name
    rows = [_from_scratch("erm", TRAININGS, shortlist=2)]
    rows += [
        _from_erm(name, kept=kept) for name in ("full-finetuning", "aim-fair") for kept in ways
    ]
    rows += [
        _from_scratch("synthetic-groups"),
        *lines("dfr"),
        _with_setting("group-dro", weight_decay=DECAYS),
        _with_setting("jtt", upweight=(2, 5, 20, 50)),
    ]
    few = [
        _from_scratch("ffr"),
        *(_from_erm("random-mask", kept=kept) for kept in ways),
        _with_setting("afr", gamma=(0.25, 1.0, 4.0, 10.0)),
        _from_scratch("supplementation"),
        _with_setting("diga", consistency=(0.0, 0.1, 1.0, 10.0)),
        *(_from_erm("aim-fair-cosine", kept=kept) for kept in ways),
        _with_setting("xrm", twin_epochs=(3, 6, 12, 24)),
        _from_scratch("synthetic-then-head"),
        _from_scratch("synthetic-only"),
        _from_scratch("repairing"),
        _from_erm("linear-probing"),
        _from_erm("lora"),
        _from_erm("ltgc-mixing"),
        _with_setting("lff", q=(0.1, 0.3, 0.5, 0.7)),
        _with_setting("eiil", reference_epochs=(1, 3, 8, 20)),
        _with_setting("cvar-dro", alpha=(0.3, 0.5, 0.7, 0.9)),
        _with_setting("maple", share=(0.1, 0.3, 0.5, 0.7)),
        _with_setting("balanced-sampling", weight_decay=DECAYS),
    ]
    taught = {  # is it the drawing that helps, or the faces that the generator has seen?
        "faces that taught the generator": "corpus",
        "the same, groups unknown": "corpus-without-groups",
    }
    for words, generator in taught.items():
        few += [
            replace(row, title=f"{row.title}, {words}", changes={"generator": generator})
            for row in (
                _from_erm("full-finetuning", kept=True),
                _from_scratch("supplementation"),
            )
        ]
    return rows + [replace(row, seeds=3) for row in few]


def _from_scratch(method: str, among: tuple[str, ...] = SCHEDULES, shortlist: int = 1) -> Row:
    """A method that trains from scratch: three seeds run every schedule, all seeds choose among those of the shortlist."""
    title = methods.get(method).title
    return Row(title, method, among={"training": among}, first=3, shortlist=shortlist)


def _with_setting(method: str, **among: tuple[Any, ...]) -> Row:
    """Likewise, on the schedule of ERM: what is searched is a setting of the method's own, with as many values in all."""
    searched = {"training": (SCHEDULE,), **among}
    return Row(methods.get(method).title, method, among=searched, first=3)


def _from_erm(method: str, *, kept: bool | None = None) -> Row:
    """A method that goes on from ERM: three seeds run every rate, all choose among the two best. ``kept`` says whether
    batch-norm statistics are."""
    words = {None: "", True: ", statistics kept", False: ", statistics follow"}[kept]
    fixed = {} if kept is None else {"batchnorm": "eval" if kept else "train"}
    title = methods.get(method).title + words
    return Row(title, method, fixed, among={"lr": RATES_FROM_ERM}, first=3, shortlist=2)


def crossed() -> dict[tuple[str, str, str], Row]:
    """(mask, batch-norm statistics, checkpoint) -> the row of the factorial in which weights learn so.

    Statistics "follow" the synthetic faces as in the official loop, are "kept" from the biased model, or are "real":
    estimated again on the real faces after a fine-tuning in which they followed.
    """
    found = {}
    for mask, (title, method) in MASKS.items():
        for kept, rule in CHECKPOINTS.items():
            ways: dict[str, tuple[str, dict[str, Any]]] = {
                "follow": (method, {"batchnorm": "train"}),
                "kept": (method, {"batchnorm": "eval"}),
                "real": ("batchnorm-real", {"mask": mask}),
            }
            for statistics, (name, fixed) in ways.items():
                row = Row(f"{title}; statistics {statistics}; {kept}", name, {**fixed, **rule})
                found[title, statistics, kept] = row
    return found


def averaged(frame: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Chosen runs of ``experiment`` with the random draws of a title as one, their mean: a row per method and seed, numbers
    only."""
    numbered = {
        row.title: row.title.rpartition(" ")[0]
        for row in experiment.rows
        if "draw" in row.fixed
    }
    named = frame.assign(method=frame["method"].replace(numbered))
    return (
        named.groupby(["setting", "method", "seed"], sort=False)
        .mean(numeric_only=True)
        .reset_index()
    )


def with_photographs(study: Study, *names: str) -> list[Study]:
    """``study`` and, if it is the main one, those of :data:`PHOTOGRAPHS` (or of ``names``), with the same device and place of
    runs. No photograph is needed for what is published."""
    if study.profile.profile != "demo":
        return [study]
    shared = {"device": str(study.device), "runs_root": str(study.runs_root)}
    return [
        study,
        *(
            open_study(name, changes=PHOTOGRAPHS[name], **shared)
            for name in names or PHOTOGRAPHS
        ),
    ]


def _draws(title: str, method: str, **fixed: Any) -> list[Row]:
    return [Row(f"{title} {draw + 1}", method, {**fixed, "draw": draw}) for draw in DRAWS]


def _longer(p: Profile, twice: Row, tuned: list[Row]) -> list[Row]:
    kept = [
        Row(f"{row.title}, statistics kept", row.method, {"batchnorm": "eval"}) for row in tuned
    ]
    thrice = [
        replace(row, title=f"{row.title}, longer ERM", changes=trained(p, 3))
        for row in tuned + kept
    ]
    longest = Row("ERM, three times the epochs", "erm", changes=trained(p, 3))
    return [*lines("erm", "diga"), twice, longest, *tuned, *thrice]


def _blocks() -> list[Row]:
    single = lines("update-one-block", "freeze-one-block")
    return [
        Row(f"{row.title}: {block}", row.method, {"block": block})
        for row in single
        for block in BLOCKS
    ]


def _no_weights() -> list[Row]:
    rows = [Row("No weights; statistics kept", "erm")]
    rows += [Row("No weights; statistics real", "batchnorm-real", {"mask": "none", "lr": 0.01})]
    for kept, rule in CHECKPOINTS.items():
        rows += [
            Row(
                f"No weights; statistics follow; {kept}",
                "random-ratio",
                {"ratio": 0.0, "lr": 0.01, **rule},
            )
        ]
    return rows


def _interpolations() -> list[Row]:
    name = "weight-interpolation"
    return [
        *lines(name),
        Row("Weight interpolation, statistics real", name, {"statistics": "re-estimated"}),
        Row("Weight interpolation, rate 0.003", name, {"lr": 0.003}),
        Row("Weight interpolation, rate 0.03", name, {"lr": 0.03}),
    ]


def _real_statistics(core: list[Row]) -> list[Row]:
    erm, full, aim = core
    every, selected = (
        Row(f"{MASKS[mask][0]}, statistics real", "batchnorm-real", {"mask": mask})
        for mask in ("all", "aim-fair")
    )
    passed = Row("Baseline, statistics real", "batchnorm-real", {"mask": "none", "lr": 0.01})
    return [erm, passed, full, every, aim, selected]


def _finer() -> list[Row]:
    rows = []
    for title, random, name in (
        ("channels", "Random channels", "channel-mask"),
        ("single weights", "Random weights", "scalar-mask"),
    ):
        rows += [*lines(name), Row(f"AIM-Fair, {title}, by share", name, {"size": "share"})]
        rows += _draws(random, name, ranking="random")
    return rows


def _scores() -> list[Row]:
    rows = lines(
        "full-finetuning", "aim-fair", "aim-fair-cosine", "aim-fair-relative", "aim-fair-noise"
    )
    return rows + [
        Row(f"AIM-Fair, {one} ranking alone", "aim-fair", {"rankings": one})
        for one in ("bias", "domain")
    ]


def _at(rates: tuple[float, ...], rows: list[Row]) -> list[Row]:
    return [
        Row(f"{r.title}, rate {rate:g}", r.method, {**r.fixed, "lr": rate})
        for r in rows
        for rate in rates
    ]


def _taught(p: Profile) -> list[Row]:
    """The method as it is registered, with one choice changed at a time, and fine-tuned afterwards."""
    name, tuned = "synthetic-groups", "synthetic-groups-tuned"
    changed: list[tuple[str, dict[str, Any]]] = [
        ("cut at a half", {"cut": "half"}),
        ("cut by the confusion", {"cut": "confusion"}),
        ("statistics kept", {"reestimate": False}),
        ("soft guesses", {"soft": True}),
        ("Group DRO", {"balance": "group-dro"}),
    ]
    few = [p.images_per_group // part or 1 for part in (40, 10, 4)]
    changed += [
        (f"{faces} faces of each group", {"faces": faces}) for faces in dict.fromkeys(few)
    ]
    return [
        *lines("erm", "jtt", "xrm", "afr", "ffr", "synthetic-then-head", name),
        *(Row(f"Taught groups, {title}", name, fixed) for title, fixed in changed),
        *lines(tuned),
        Row("Taught groups, then tuned, statistics follow", tuned, {"batchnorm": "train"}),
    ]


def _prompts() -> list[Row]:
    named = {
        f"AIM-Fair, {title[0].lower()}{title[1:]}": variant
        for title, variant in PROMPTS.items()
    }
    return [
        Row(title, "aim-fair", changes={"prompts": variant}) for title, variant in named.items()
    ]


def _selected_faces(p: Profile) -> list[Row]:
    rows = [
        Row(f"Synthetic only, {rule}", "synthetic-only", changes={"selection": rule})
        for rule in selection.RULES
    ]
    for rule in ("random", "faithful"):
        eighth = {"selection": rule, "selected_per_group": max(1, p.images_per_group // 8)}
        rows.append(Row(f"Synthetic only, {rule}, an eighth", "synthetic-only", changes=eighth))
        rows.append(Row(f"AIM-Fair, {rule}", "aim-fair", changes={"selection": rule}))
    return rows
