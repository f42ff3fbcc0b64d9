"""A trained classifier on faces of another source: does fairness travel?

A test elsewhere is a run like any other, with the same method, hyper-parameters and seed, whose test faces are of another
data set with the same two attributes. Its validation faces are those from home, so that it is chosen as at home; and it
has a third split, "home": the test faces from home, seen by the very same classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from aimfair import datasets, methods, sampling
from aimfair.environment import AimfairError, resolve
from aimfair.faces import FaceSet
from aimfair.generate import corpora
from aimfair.study import runs
from aimfair.study.corpus import corpus_root
from aimfair.study.runs import Run
from aimfair.study.study import Study


@dataclass(frozen=True)
class Place:
    """Faces of another source.

    about      what it is, in a few words
    dataset    a data set of :mod:`aimfair.datasets`, with ``options`` for its catalogue
    split      the part of it that is used; empty: all of it
    per_group  faces of each group, drawn once and for all; 0: all faces, in their natural shares
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
FAIRFACE = Place(
    "photographs of another collection", "fairface", "validation", 800, corpora.FAIRFACE_MARGIN
)

PLACES: dict[str, dict[str, Place]] = {
    "faceworld": {
        "new-faces": Place(
            "other faces of the same world",
            "faceworld",
            "test",
            options={**NONE_BUT_TEST, "seed": 1},
        ),
        "cartoons": Place(
            "the faces of the test set as cartoons",
            "faceworld",
            "test",
            drawn_from="the generator draws cartoons",
            options={**NONE_BUT_TEST, "style": "web"},
        ),
    },
    "utkface": {
        "fairface": FAIRFACE,
        "fairface-training": replace(
            FAIRFACE, split="train", drawn_from="the generator was trained on these photographs"
        ),
    },
    "fairface": {
        "utkface": Place("photographs of another collection", "utkface", per_group=800)
    },
}
"""Data set of a study -> where its classifiers can be tested. CelebA's Smiling is labelled in no other data set here."""


def places(study: Study) -> dict[str, Place]:
    """Where classifiers of this study can be tested; none for a data set whose attributes no other one has."""
    return PLACES.get(study.profile.dataset, {})


def place_of(study: Study, name: str) -> Place:
    """The place called ``name``. Raises AimfairError, listing all, for one that this study does not have."""
    if name not in places(study):
        known = ", ".join(places(study)) or "none, because no other data set has its attributes"
        raise AimfairError(
            f"no place {name!r} to test classifiers of {study.profile.dataset}; places: {known}"
        )
    return places(study)[name]


@lru_cache(maxsize=4)  # they are decoded once for all runs of a study object
def faces(study: Study, name: str, root: str = "") -> FaceSet:
    """The test faces of a place, labelled and sized as the study's own.

    root  folder of the other data set; empty: the profile's corpus if it is that one, else the folder of its name beside
          the study's ``data_root``
    Raises AimfairError for a place without the attributes, the split or enough faces.
    """
    place, p = place_of(study, name), study.profile
    if not root and place.dataset == p.corpus:
        root = corpus_root(p, study.data_root)
    elif not root and place.dataset != "faceworld":
        if not study.data_root:
            raise AimfairError(
                f"testing on {place.dataset} needs its folder: give it, or put it beside the data_root"
            )
        root = str(resolve(study.data_root).parent / place.dataset)
    other = datasets.load(place.dataset, root or None, **place.options)
    index = np.arange(len(other))
    if place.split:
        index = np.flatnonzero(other.attributes["split"].to_numpy() == place.split)
        if not len(index):
            raise AimfairError(
                f"{other.name} has no {place.split} faces under this folder: fetch them, or test elsewhere"
            )
    if place.per_group:
        target, protected = other.labels(p.target)[index], other.labels(p.protected)[index]
        index = index[sampling.balanced(target, protected, place.per_group, seed=0)]
    cut = round(p.image_size * place.margin / 2)
    wide = other.faces(index, p.target, p.protected, p.image_size + 2 * cut)
    kept = slice(cut, cut + p.image_size)
    return replace(wide, images=wide.images[:, :, kept, kept].contiguous())


def config(
    study: Study, name: str, method: str, hyper: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Configuration of a test elsewhere: that of the run at home, in a study that says where it is tested."""
    at_home = study.config(method, hyper, seed)
    place = {
        key: value
        for key, value in asdict(place_of(study, name)).items()
        if key not in ("about", "drawn_from")
    }
    return at_home | {"study": at_home["study"] | {"tested on": {"place": name, **place}}}


def folder(study: Study, name: str) -> str:
    """The folder of ``data/published`` that holds the tests of a place."""
    return f"{study.profile.profile}-on-{name}"


def tests(
    study: Study, method: str, seed: int, names: Sequence[str], root: str = "", **hyper: Any
) -> dict[str, Run]:
    """The tests of one run in several places: found, or made now, for which its classifier is trained at most once.

    ``scores["drift"]`` is the largest distance, on validation faces, between a logit of this classifier and that of the
    stored run at home; None where no run is stored. It is 0 where training again gave the same classifier, and of the
    size of a rounding error (.01) where the stored logits are published ones.
    """
    complete = methods.get(method).hyper(**hyper)
    classifier = cache(lambda: study.classifier(method, seed, **complete))

    def find(wanted: dict[str, Any], name: str) -> Run | None:
        found = runs.find(study.runs_root, wanted)
        if found is None and study.reuse:
            found = runs.find_published(study.published_root, folder(study, name), wanted)
        return found

    def make(wanted: dict[str, Any], name: str) -> Run:
        began = perf_counter()
        sets = {
            "test": faces(study, name, root),
            "validation": study.faces("validation"),
            "home": study.faces("test"),
        }
        predictions = study.predict(classifier(), sets)
        home, drift = study.find(study.config(method, complete, seed)), None
        if home is not None and "logit" in home.predictions:  # most published runs lack it
            here = predictions.loc[predictions["split"] == "validation", "logit"].to_numpy(
                np.float64
            )
            drift = float(np.abs(here - home.logits("validation")).max())
        scores = {"drift": drift, "seconds": round(perf_counter() - began, 1)}
        return runs.store(study.runs_root, wanted, predictions, scores)

    made = {}
    for name in names:
        wanted = config(study, name, method, complete, seed)
        made[name] = study.once(wanted, lambda: find(wanted, name), lambda: make(wanted, name))  # noqa: B023
    return made


def results(study: Study, name: str, method: str) -> list[Run]:
    """All tests of a method's runs in one place: the published ones, else this machine's; [] where neither has any."""
    wanted = config(study, name, method, {}, 0)["study"]
    found = runs.published_runs(study.published_root, folder(study, name), method)
    mine = runs.all_runs(
        study.runs_root, lambda c: c["study"] == wanted and c["method"] == method
    )
    return [run for run in found if run.config["study"] == wanted] or sorted(
        mine, key=lambda run: run.seed
    )


def publish(study: Study) -> list[Path]:
    """Pack this machine's tests of a study into ``data/published/<profile>-on-<place>``; returns the files written."""
    written = []
    for name in places(study):
        known = [config(study, name, method, {}, 0)["study"] for method in methods.registry()]
        mine = list(runs.all_runs(study.runs_root, lambda c: c["study"] in known))  # noqa: B023
        written += runs.publish(mine, study.published_root, folder(study, name))
    return written
