"""A trained classifier on faces of another source: does fairness travel?

A test elsewhere is a run like any other, with the same method, hyper-parameters and seed, whose test faces are of another
data set with the same two attributes. Its validation faces are those from home, so that it is chosen as at home; and it
has a third split, "home": the test faces from home, seen by the very same classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from aimfair import datasets, methods, metrics, sampling
from aimfair.environment import AimfairError, resolve
from aimfair.faces import FaceSet
from aimfair.generate import corpora
from aimfair.stats import Difference, hierarchical_bootstrap, paired_difference
from aimfair.study import runs
from aimfair.study.corpus import corpus_root
from aimfair.study.runs import Run

if TYPE_CHECKING:
    from aimfair.study import Study


@dataclass(frozen=True)
class Place:
    """Faces of another source.

    about      what it is, in a few words
    dataset    a data set of :mod:`aimfair.datasets`, with ``options`` for its catalogue
    split      the part of it that is used; empty: all of it
    per_group  faces of each group, drawn once and for all; 0: all there are, in their natural shares
    margin     share of the picture's width that is cut off in all, where its faces are framed more widely than at home
    drawn_from whether the study's text-to-image model was trained on these faces, or on faces of this look. For methods
               that are given synthetic faces it is then not quite elsewhere
    """

    about: str
    dataset: str
    split: str = ""
    per_group: int = 0
    margin: float = 0.0
    drawn_from: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


NONE_BUT_TEST = {"train": 0, "validation": 0, "corpus": 0}
FAIRFACE = Place("photographs of another collection", "fairface", per_group=800, margin=corpora.FAIRFACE_MARGIN)

PLACES: dict[str, dict[str, Place]] = {
    "faceworld": {
        "new-faces": Place("other faces of the same world", "faceworld", "test", options={**NONE_BUT_TEST, "seed": 1}),
        "cartoons": Place(
            "the faces of the test set as cartoons",
            "faceworld",
            "test",
            drawn_from="the generator draws cartoons",
            options={**NONE_BUT_TEST, "style": "web"},
        ),
    },
    "utkface": {
        "fairface": Place(**{**asdict(FAIRFACE), "split": "validation"}),
        "fairface-training": Place(
            **{**asdict(FAIRFACE), "split": "train", "drawn_from": "the generator was trained on these photographs"}
        ),
    },
    "fairface": {"utkface": Place("photographs of another collection", "utkface", per_group=800)},
}
"""Data set of a study -> where its classifiers can be tested. CelebA's Smiling is labelled in no other data set here."""


def places(study: Study) -> dict[str, Place]:
    """Where classifiers of this study can be tested; none for a data set whose attributes no other one has."""
    return PLACES.get(study.profile.dataset, {})


def place_of(study: Study, name: str) -> Place:
    """The place called ``name``. Raises AimfairError, listing all, for one that this study does not have."""
    if name not in places(study):
        known = ", ".join(places(study)) or "none, because no other data set has its attributes"
        raise AimfairError(f"no place {name!r} to test classifiers of {study.profile.dataset}; there are: {known}")
    return places(study)[name]


def faces(study: Study, name: str, root: str = "") -> FaceSet:
    """The test faces of a place, labelled and sized as the study's own.

    root  folder of the other data set; empty: the profile's corpus if it is that one, else the folder of its name beside
          the study's ``data_root``
    Raises AimfairError for a place without the attributes, the split or enough faces.
    """
    place, p = place_of(study, name), study.profile
    there = datasets.load(place.dataset, root or _root(study, place) or None, **place.options)
    index = np.arange(len(there))
    if place.split:
        index = np.flatnonzero(there.attributes["split"].to_numpy() == place.split)
        if not len(index):
            raise AimfairError(
                f"{there.name} has no {place.split} faces under this folder: fetch them, or test elsewhere"
            )
    target, protected = there.labels(p.target)[index], there.labels(p.protected)[index]
    if place.per_group:
        index = index[sampling.balanced(target, protected, place.per_group, seed=0)]
    cut = round(p.image_size * place.margin / 2)
    wide = there.faces(index, p.target, p.protected, p.image_size + 2 * cut)
    if not cut:
        return wide
    images = wide.images[:, :, cut : cut + p.image_size, cut : cut + p.image_size].contiguous()
    return FaceSet(images, wide.target, wide.protected, wide.names)


def config(study: Study, name: str, method: str, hyper: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Configuration of a test elsewhere: that of the run at home, in a study that says where it is tested."""
    at_home = study.config(method, hyper, seed)
    place = {key: value for key, value in asdict(place_of(study, name)).items() if key not in ("about", "drawn_from")}
    return at_home | {"study": at_home["study"] | {"tested on": {"place": name, **place}}}


def tests(study: Study, method: str, seed: int, names: Sequence[str], root: str = "", **hyper: Any) -> dict[str, Run]:
    """The tests of one run in several places: found, or made now, for which its classifier is trained at most once.

    ``scores["drift"]`` is the largest distance, on validation faces, between a logit of this classifier and that of the
    stored run at home; None where there is none. It is 0 where training again gave the same classifier, and of the size
    of a rounding error (.01) where the stored logits are published ones.
    """
    complete = methods.get(method).hyper(**hyper)
    home = study.config(method, complete, seed)
    classifier = cache(lambda: study.classifier(method, seed, **complete))

    def make(name: str, configured: dict[str, Any]) -> Run:
        began = perf_counter()
        at_home = {"validation": study.faces("validation"), "home": study.faces("test")}
        sets = {"test": _faces(study, name, root), **at_home}
        predictions = study.predict(classifier(), sets)
        scores = {"drift": _drift(predictions, study.find(home)), "seconds": round(perf_counter() - began, 1)}
        return runs.store(study.runs_root, configured, predictions, scores)

    made = {}
    for name in names:
        wanted = config(study, name, method, complete, seed)
        made[name] = study.once(
            wanted,
            lambda wanted=wanted, name=name: find(study, name, wanted),  # type: ignore[misc]
            lambda wanted=wanted, name=name: make(name, wanted),  # type: ignore[misc]
        )
    return made


def find(study: Study, name: str, wanted: Mapping[str, Any]) -> Run | None:
    """A finished test: on this machine, else (with ``reuse``) among the published ones."""
    found = runs.find(study.runs_root, wanted)
    if found is None and study.reuse:
        found = runs.find_published(study.published_root, _folder(study, name), wanted)
    return found


def results(study: Study, name: str, method: str) -> list[Run]:
    """All tests of a method's runs in one place: the published ones, else this machine's; [] where there are none."""
    wanted = config(study, name, method, {}, 0)["study"]
    found = runs.published_runs(study.published_root, _folder(study, name), method)
    published = [run for run in found if run.config["study"] == wanted]
    if published:
        return published
    mine = runs.all_runs(study.runs_root, lambda c: c["study"] == wanted and c["method"] == method)
    return sorted(mine, key=lambda run: run.seed)


def frame(study: Study) -> pd.DataFrame:
    """A row per finished test of the study: place, method (its title), seed, drift, the fairness report there, and "home
    acc", "home wst" and "home eo_max" of the same classifier. Empty where there is none."""
    rows = []
    for name in places(study):
        for method in methods.registry().values():
            for run in results(study, name, method.name):
                home = run.report("home")
                beside = {f"home {metric}": getattr(home, metric) for metric in ("acc", "wst", "eo_max")}
                row = {"place": name, "method": method.title, "seed": run.seed, "drift": run.scores["drift"]}
                rows.append(row | run.report().as_dict() | beside)
    return pd.DataFrame(rows)


def moved(study: Study, name: str, method: str, metric: str, draws: int = 1000, seed: int = 0) -> Difference:
    """A metric ("acc", "wst" or "eo_max") in a place minus at home, mean over seeds, in points, with a 95 % interval.

    All seeds share the two sets of test faces, and these are two samples. Seeds alone would take for an effect of the place
    what happens to be in them, so to the interval over seeds (:func:`aimfair.stats.interval`) the bootstrap over the faces
    of both sets is added, half-widths in squares; where the places show the same faces this is too wide. ``p`` is the
    sign-flip test over seeds alone. Raises AimfairError without a test.
    """
    tested = results(study, name, method)
    if not tested:
        raise AimfairError(f"no test of {method} on {name} yet: aimfair measure transfer {method} --on {name}")
    there, home = ([getattr(run.report(split), metric) for run in tested] for split in ("test", "home"))
    over_seeds = paired_difference(there, home)
    samples = [_resampled(tested, split, metric, draws, seed + i) for i, split in enumerate(("test", "home"))]
    faces_alone = norm.ppf(0.975) * np.std(samples[0] - samples[1])
    low, high = (
        over_seeds.mean + side * np.hypot(over_seeds.mean - end, faces_alone)
        for side, end in ((-1, over_seeds.low), (1, over_seeds.high))
    )
    return replace(over_seeds, low=float(low), high=float(high))


def _resampled(tested: Sequence[Run], split: str, metric: str, draws: int, seed: int) -> np.ndarray:
    """(draws,) mean over the runs of a metric, if the faces of ``split`` were drawn again, the same for all runs."""
    tables = [run.predictions[run.predictions["split"] == split] for run in tested]
    group = (2 * tables[0]["target"] + tables[0]["protected"]).to_numpy()
    right = np.stack([(table["logit"] >= 0) == (table["target"] == 1) for table in tables])
    cells = hierarchical_bootstrap(right[:, None], group, draws, seed)[:, :, 0]
    if metric == "acc":
        return (cells @ np.bincount(group, minlength=4) / len(group)).mean(1)
    return getattr(metrics, metric)(cells).mean(1)


def publish(study: Study) -> list[Path]:
    """Pack this machine's tests of a study into ``data/published/<profile>-on-<place>``; returns the files written."""
    written = []
    for name in places(study):
        wanted = [config(study, name, method, {}, 0)["study"] for method in methods.registry()]
        mine = runs.all_runs(study.runs_root, lambda c, wanted=wanted: c["study"] in wanted)  # type: ignore[misc]
        written += runs.publish(mine, study.published_root, _folder(study, name))
    return written


def _folder(study: Study, name: str) -> str:
    return f"{study.profile.profile}-on-{name}"


def _root(study: Study, place: Place) -> str:
    if place.dataset == "faceworld":
        return ""
    if place.dataset == study.profile.corpus:
        return corpus_root(study.profile, study.data_root)
    if not study.data_root:
        raise AimfairError(f"testing on {place.dataset} needs its folder: give it, or put it beside the data_root")
    return str(resolve(study.data_root).parent / place.dataset)


def _faces(study: Study, name: str, root: str) -> FaceSet:
    """:func:`faces`, decoded once for all runs of a study object."""
    kept = study.__dict__.setdefault("_elsewhere", {})
    if name not in kept:
        kept[name] = faces(study, name, root)
    return kept[name]


def _drift(predictions: pd.DataFrame, home: Run | None) -> float | None:
    if home is None:
        return None
    one, other = (p[p["split"] == "validation"]["logit"].to_numpy(np.float64) for p in (predictions, home.predictions))
    return float(np.abs(one - other).max())
