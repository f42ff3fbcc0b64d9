"""The audit of a study: which judge looks at a profile's synthetic faces, what their prompts mention, what was found."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from aimfair import prompts
from aimfair.audit import judges, nuisances, report
from aimfair.environment import AimfairError, home
from aimfair.generate import corpora
from aimfair.generate.classifier import Classifier, Judge, load_classifier
from aimfair.prompts import coverage, wording
from aimfair.study.corpus import NoCorpus, load_corpus
from aimfair.study.pool import pool_catalogue, pool_folder, take_faces
from aimfair.study.profiles import Profile

SHIPPED = {"faceworld": "judge.safetensors", "fairface": "judge-fairface.safetensors"}
"""Corpus -> the judge of it in ``data/tiny-sd``. Each looks at 64 px, to which it resizes what it is shown."""

MADE = ("model", "revision", "scheduler", "steps", "guidance", "drawn", "size", "negative_prompt", "arguments")
"""Columns of a manifest that a datasheet lists."""


class NoJudge(AimfairError):
    """There is nothing here on which a judge of a profile's faces could learn."""


def judge_of(profile: Profile, device: str = "cpu", data_root: str = "") -> Classifier:
    """The judge of a profile's synthetic faces, which never saw a face or a label that a classifier learns from.

    For FaceWorld and for the corpus FairFace the one that the repository ships; else a classifier of the profile's external
    corpus (:func:`aimfair.audit.judges.train_corpus_judge`), trained at the first call and kept in ``data/cache``. Raises
    NoJudge where the profile names no corpus, or one that is not on this disk.
    """
    known, clip = _corpus(profile), "or have CLIP judge an audit (--clip FOLDER)"
    if known in SHIPPED:
        return load_classifier(_shipped(known), device)
    if not known:
        raise NoJudge(
            f"profile {profile.profile} names no corpus on which a judge of its faces could learn: set -p corpus= to "
            f"{', '.join(corpora.CORPORA)}, {clip}"
        )

    def train() -> Classifier:
        return judges.train_corpus_judge(load_corpus(profile, data_root), device)[0]

    try:
        return judges.kept_judge(judge_identity(profile), train, device)
    except NoCorpus as error:
        raise NoJudge(f"the judge of the faces learns from {known}, which is not here: {error}, {clip}") from error


def judge_identity(profile: Profile) -> str:
    """What tells the judge of one profile from that of another: a digest of the shipped one, or corpus and image size."""
    known = _corpus(profile)
    if known in SHIPPED:
        return f"{known}@{hashlib.blake2b(_shipped(known).read_bytes(), digest_size=4).hexdigest()}"
    return f"{known}-{profile.image_size}"


def _corpus(profile: Profile) -> str:
    return "faceworld" if profile.dataset == "faceworld" else profile.corpus


def _shipped(corpus: str) -> Path:
    return home() / "data" / "tiny-sd" / SHIPPED[corpus]


def choose_judges(study: Any, clip: str = "") -> tuple[Judge, Judge | None]:
    """The judge of a study's synthetic faces, and CLIP as the second one; CLIP alone where there is no other.

    clip  folder or hub name of a CLIP model; empty for none
    Raises NoJudge where there is neither.
    """
    second = judges.load_clip(clip, study.device) if clip else None
    try:
        return judge_of(study.profile, study.device, study.data_root), second
    except NoJudge:
        if second is None:
            raise
        return second, None


def nuisance_judges(profile: Profile, judge: Judge, device: str = "cpu") -> list[Judge]:
    """Who looks for attributes that are no label: ``judge``, and for FaceWorld one of its hair, glasses, beards and so on.

    That one is trained at the first call, on cartoons of another world than the generator's, and kept in ``data/cache``.
    """
    if "faceworld" not in (profile.corpus, profile.dataset) or not isinstance(judge, Classifier):
        return [judge]
    from aimfair.datasets import faceworld

    world = faceworld.catalogue(train=0, validation=0, test=0, corpus=100).attributes
    names = [n for n in world if world[n].isin((0, 1)).all() and n not in judges.JUDGED]

    def train() -> Classifier:
        return judges.train_faceworld_judge(images=8_000, attributes=names, epochs=6, seed=1)

    return [judge, judges.kept_judge("faceworld-nuisances", train, device)]


def mentions(manifest: pd.DataFrame, profile: Profile) -> list[set[str]]:
    """What the prompt of each image says beside its labels, by :func:`aimfair.prompts.coverage.mentioned`.

    manifest  a row per image with a column ``prompt``, without which nothing is known and the list is empty. Where a
              column ``prompt_id`` names a prompt of the profile's bank, what the bank declares of it counts as far as
              the text says it.
    """
    if "prompt" not in manifest:
        return []
    _, at, mine = profile.prompts.partition("@")  # a bank beside the recorded one
    name = f"{profile.dataset}/{profile.task}{at}{mine}"
    groups = prompts.read(name)["groups"].values() if prompts.path_of(name).exists() else ()
    declared = {prompt["id"]: [*prompt["attributes"], prompt["pose"]] for g in groups for prompt in g["prompts"]}
    ids, texts = (manifest.get(column, manifest["prompt"]).astype(str) for column in ("prompt_id", "prompt"))

    @cache
    def read(id: str, text: str) -> set[str]:
        said = [what for what in declared.get(id, ()) if wording.says(text, what)]
        prompt = {"text": text, "attributes": said, "pose": ""}
        return coverage.mentioned(prompt, (profile.target, profile.protected))

    return list(map(read, ids, texts))


def audit_pool(study: Any, clip: str = "", training: bool = True, skip_broken: bool = False) -> report.PoolAudit:
    """Audit what ``study`` draws its synthetic sets from (:func:`aimfair.audit.report.examine`); with a rule that
    selects, what is selected.

    clip         folder or hub name of a CLIP model: a second judge, and the only one where there is no corpus for another
    training     also train a classifier on the synthetic faces alone, unless such a run of the study's seed is there
    skip_broken  images that cannot be decoded are left out of the study's pool and listed, in place of ending the audit

    The real faces are the validation set, so that the test set is not read before the end: also ``trained`` is measured
    on it, a little too high, because its best epoch was chosen there.
    """
    p, device = study.profile, study.device
    judge, second = choose_judges(study, clip)
    catalogue = pool_catalogue(p, device, study.data_root, on_error="skip" if skip_broken else "raise")
    if skip_broken:
        study.pool = take_faces(p, catalogue)
    faces = study.selected(study.seed)
    manifest = catalogue.attributes.iloc[catalogue.positions(faces.names)].reset_index(drop=True)
    found = report.examine(
        faces,
        judge,
        {"target": p.target, "protected": p.protected},
        study.faces("validation"),
        study.faces("train").images,
        clip=second,
        said=mentions(manifest, p),
        seen=nuisances.look_for(nuisance_judges(p, judge, device), faces.images, (p.target, p.protected)),
        trained=study.run("synthetic-only").report("validation") if training else None,
    )
    found.about.update(dataset=p.dataset, made=_made(study, manifest, judge, clip), skipped=catalogue.skipped)
    return found


def _made(study: Any, manifest: pd.DataFrame, judge: Judge, clip: str) -> dict[str, str]:
    """How the images were made and judged, as a datasheet lists it; ``manifest`` has a row per image."""
    p = study.profile
    values = {name: sorted(map(str, manifest[name].dropna().unique())) for name in MADE if name in manifest}
    if "prompt" in manifest:
        values["distinct prompts"] = [str(manifest["prompt"].nunique())]
    made = {"folder": f"`{pool_folder(p)}`", "profile": p.profile}
    made |= {name: ", ".join(found[:5]) for name, found in values.items() if any(found)}
    if not values:
        made["manifest"] = "none, so it is not known how the images were made"
    if p.selection != "none":
        made["selected from a larger pool by the rule"] = f"{p.selection} (seed {study.seed})"
    made["judge"] = f"classifier, trained on {p.corpus or p.dataset}" if isinstance(judge, Classifier) else "CLIP"
    return made | ({"CLIP": clip} if clip else {})
