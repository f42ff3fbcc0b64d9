"""The synthetic faces of a profile: its prompts -> images on disk -> FaceSet, with a generator that is trained if need be."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aimfair import datasets, prompts
from aimfair.datasets import Catalogue
from aimfair.datasets import folder as image_folder
from aimfair.environment import AimfairError, home, locked, reading, resolve
from aimfair.faces import FaceSet, group_index
from aimfair.generate import draw, edit, manifest, pipelines, presets, tiny_sd
from aimfair.generate.manifest import AnyJob, Job
from aimfair.generate.pipelines import Compute
from aimfair.study.corpus import corpus_root, load_corpus
from aimfair.study.profiles import Profile

ELSEWHERE = "folder:"
"""How a generator begins that is none: a folder of images made elsewhere."""

CONTROLS = ("corpus", "corpus-without-groups")
"""Generators that are none: the very faces on which the profile's generator learns, in place of what it draws. The second
one does not know their protected labels: they are shuffled within each class, so that groups have their natural shares."""


def synthetic_faces(profile: Profile, device: str = "cpu", data_root: str = "") -> FaceSet:
    """``images_per_group`` synthetic faces of each group, in a fixed order.

    Images are generated where they are missing and kept under ``data/synthetic/``; two processes that want the same
    pool wait for each other. ``generator: folder:PATH`` takes images made elsewhere, and those of :data:`CONTROLS` the
    faces that taught the generator.
    """
    if profile.generator in CONTROLS:
        return corpus_faces(profile, data_root)
    return take_faces(profile, pool_catalogue(profile, device, data_root))


def corpus_faces(profile: Profile, data_root: str = "") -> FaceSet:
    """``images_per_group`` faces of each group (all, where there are fewer) of the profile's corpus, in its order.

    Raises AimfairError for a corpus that does not know both attributes, and as :func:`aimfair.study.corpus.load_corpus`.
    """
    corpus = load_corpus(profile, data_root)
    if absent := {profile.target, profile.protected} - set(corpus.names):
        raise AimfairError(f"the corpus {profile.corpus} does not know {min(absent)}: it has {', '.join(corpus.names)}")
    target, protected = (corpus.labels[:, corpus.names.index(n)].clone() for n in (profile.target, profile.protected))
    if profile.generator == CONTROLS[1]:
        generator = torch.Generator().manual_seed(0)
        for members in ((target == c).nonzero().squeeze(1) for c in (0, 1)):
            protected[members] = protected[members[torch.randperm(len(members), generator=generator)]]
    groups = group_index(target, protected)
    kept = torch.cat([(groups == g).nonzero().squeeze(1)[: profile.images_per_group] for g in range(4)])
    names = np.array([f"{profile.corpus}-{i}" for i in kept.tolist()])
    return FaceSet(corpus.images[kept], target[kept], protected[kept], names)


def pool_catalogue(profile: Profile, device: str = "cpu", data_root: str = "", on_error: str = "raise") -> Catalogue:
    """Names, labels and manifest of the images from which the pool is taken, drawn now where they are missing.

    For ``on_error`` see :func:`aimfair.datasets._images.build`.
    """
    folder = pool_folder(profile)
    if not is_made_elsewhere(profile):
        with locked(f"{folder}.lock"):  # one process draws the pool, while all others that want it wait
            draw_pool(profile, folder, device, data_root)
    found = datasets.load("folder", str(folder), target=profile.target, protected=profile.protected, on_error=on_error)
    if not (folder / "settings.json").exists():
        return found
    settings = {name: value for name, value in manifest.read_settings(folder).items() if value != ""}
    return replace(found, attributes=found.attributes.assign(**settings))


def take_faces(profile: Profile, catalogue: Catalogue) -> FaceSet:
    """The first ``images_per_group`` faces of each group. Raises AimfairError where a group has none."""
    group = 2 * catalogue.labels(profile.target) + catalogue.labels(profile.protected)
    wanted = [np.flatnonzero(group == g)[: profile.images_per_group] for g in range(4)]
    if min(map(len, wanted)) == 0:
        raise AimfairError(
            f"{catalogue.name} has no image of some group: {[len(w) for w in wanted]} of (0,0) (0,1) (1,0) (1,1)"
        )
    return catalogue.faces(np.concatenate(wanted), profile.target, profile.protected, profile.image_size)


def is_made_elsewhere(profile: Profile) -> bool:
    """Whether the profile takes its synthetic images from a folder, or from the corpus, and draws none."""
    return profile.generator.startswith(ELSEWHERE) or profile.generator in CONTROLS


def pool_folder(profile: Profile) -> Path:
    """Where the pool's images lie; never committed.

    One folder per data set, generator, prompt variant, size, steps, guidance and draw; the tasks share it, each with
    sub-folders of its own. Images made elsewhere lie where the profile says.
    """
    if is_made_elsewhere(profile):
        return resolve(profile.generator.removeprefix(ELSEWHERE))
    made = f"{profile.prompts}-{profile.image_size}-{profile.steps}-{profile.guidance:g}"
    draw = f"-draw{profile.draw}" if profile.draw else ""
    return home() / "data" / "synthetic" / f"{profile.dataset}-{_in_a_name(profile.generator)}-{made}{draw}"


def pool_jobs(profile: Profile) -> list[Job]:
    """Every image of the pool, whether it is drawn or not."""
    bank = prompts.bank(f"{profile.dataset}/{profile.task}", profile.prompts)
    return manifest.jobs(bank, profile.images_per_group, profile.task, profile.draw)


def missing_images(profile: Profile, todo: Sequence[AnyJob], folder: Path) -> list[AnyJob]:
    """Those of ``todo`` (of the pool, or of edits) that have no image in ``folder`` yet.

    Raises AimfairError where images lie there that were made with other settings, and for images made elsewhere, of
    which none can be drawn. Nothing is loaded: what only the loaded model knows is compared when it draws.
    """
    manifest.check_same(folder, todo, pipelines.known_settings(model_of(profile)) | _settings(profile))
    return manifest.missing(todo, folder)


def draw_pool(
    profile: Profile,
    folder: Path,
    device: str,
    data_root: str,
    compute: Compute | None = None,
    processes: int | None = None,
) -> None:
    """Draw what is missing of the pool, as :func:`aimfair.generate.draw.generate_in_processes` does.

    Raises AimfairError as that function and :func:`missing_images` do.
    """
    jobs = pool_jobs(profile)
    if missing_images(profile, jobs, folder):
        load = partial(pipelines.load_pipeline, generator(profile, device, data_root), compute=compute)
        draw.generate_in_processes(load, jobs, folder, device=device, processes=processes, **_settings(profile))


def edited_faces(
    profile: Profile,
    faces: FaceSet,
    device: str = "cpu",
    data_root: str = "",
    *,
    draw: int = 0,
    weakest: float = 0.4,
    strongest: float = 0.8,
) -> FaceSet:
    """``faces``, in their order, redrawn by the profile's text-to-image model; see :func:`aimfair.generate.edit.edits`.

    ``protected`` of the result is what the prompts ask for, drawn by lot: no label of a real face. Images are made where
    they are missing and kept under ``data/synthetic/``; processes that want the same ones wait for each other. The edit
    of a face is the same in every set that holds the face. Where an edit came out black the face stays as it was.

    Raises AimfairError for a profile whose synthetic images were made elsewhere, and for edits made with other settings.
    """
    if is_made_elsewhere(profile):
        raise AimfairError(
            f"profile {profile.profile} takes its synthetic images from {profile.generator}, and a folder cannot edit faces: "
            "set generator to a text-to-image model"
        )
    bank = prompts.bank(f"{profile.dataset}/{profile.task}", profile.prompts)
    todo = edit.edits(faces.without_protected(), bank, profile.task, draw, profile.steps, weakest, strongest)
    made = f"{profile.image_size}-{profile.steps}-{profile.guidance:g}"
    name = f"edited-{profile.dataset}-{_in_a_name(profile.generator)}-{made}"
    folder = home() / "data" / "synthetic" / name
    with locked(f"{folder}.lock"):
        if missing_images(profile, todo, folder):
            pipeline = pipelines.load_pipeline(generator(profile, device, data_root), device)
            edit.edit(pipeline, faces, todo, folder, **_settings(profile))
    return edit.read_edits(faces, todo, folder)


def generator(profile: Profile, device: str, data_root: str) -> str:
    """The profile's text-to-image pipeline; a tiny one is first trained on the profile's external corpus if missing."""
    if will_be_trained(profile):
        with locked(f"{home() / profile.generator}.lock"):  # pools of several prompt variants share one training
            if will_be_trained(profile):
                return str(train_generator(profile, device, data_root))
    return model_of(profile)


def model_of(profile: Profile) -> str:
    """What to load: a preset or a name on the hub as it is, a folder in full, from the checkout or the working directory.

    Raises AimfairError for images made elsewhere: nobody can draw more of them.
    """
    name = profile.generator
    if is_made_elsewhere(profile):
        raise AimfairError(
            f"the images of {name} were made elsewhere, and no more can be drawn: name a text-to-image model instead, "
            "such as --model sd21-base, or look at them with aimfair audit --images"
        )
    if name in presets.available():
        return name
    given = Path(name).expanduser()
    found = [path for path in (home() / given, given) if path.is_dir()]
    return str(found[0] if found else home() / given if is_tiny(profile) else name)


def will_be_trained(profile: Profile) -> bool:
    """Whether the generator is missing and a tiny one will be trained in its place: below ``data/`` of the checkout only,
    so that a misspelt model starts no training."""
    return bool(profile.corpus) and is_tiny(profile) and not (home() / profile.generator).exists()


def is_tiny(profile: Profile) -> bool:
    """Whether the generator is one of this book's own: below ``data/`` of the checkout, shipped or trained here."""
    place = Path(os.path.abspath(home() / Path(profile.generator).expanduser()))
    return place.is_relative_to(os.path.abspath(home() / "data"))


def train_generator(profile: Profile, device: str, data_root: str, steps: tuple[int, int] | None = None) -> Path:
    """The tiny Stable Diffusion of the profile, trained on its corpus and saved in its place; see :func:`tiny_sd.train`."""
    corpus = load_corpus(profile, data_root)
    return tiny_sd.train(
        corpus.images,
        corpus.captions,
        home() / profile.generator,
        focus=corpus.focus,
        labels=corpus.labels,
        minutes=profile.generator_minutes,
        seed=0,
        device=device,
        about=profile.corpus,
        steps=steps,
    )


def generator_identity(profile: Profile) -> str:
    """The generator's name and what its images depend on beside it, so that runs with other images are not found.

    For one that the repository ships, a digest of its training record; for one that is trained here, its corpus and
    budget of minutes; for a preset its commit; for images made elsewhere a digest of their names, labels and sizes; for
    another folder that of its weights. Nothing more for other models of the hub, and for what is not there.
    """
    name, record = profile.generator, home() / profile.generator / "training.json"
    if name in CONTROLS:
        depends = profile.corpus
    elif is_made_elsewhere(profile):
        depends = image_folder.fingerprint(pool_folder(profile), profile.target, profile.protected)
    elif name.startswith("data/tiny-sd/") and record.exists():
        with reading(record):
            told = json.dumps(json.loads(record.read_text()), sort_keys=True)
        depends = hashlib.blake2b(told.encode(), digest_size=4).hexdigest()
    elif name in presets.available():
        depends = presets.find(name).revision[:12]
    elif is_tiny(profile):
        depends = f"{profile.corpus}-{profile.generator_minutes:g}" if profile.corpus else ""
    else:
        folder = Path(model_of(profile))
        depends = pipelines.fingerprint(folder) if folder.is_dir() else ""
    return f"{name}@{depends}" if depends else name


def _settings(profile: Profile) -> dict[str, Any]:
    return {"steps": profile.steps, "guidance": profile.guidance, "size": profile.image_size}


def _in_a_name(generator: str) -> str:
    """A generator as part of the name of a folder."""
    return generator.strip("/").replace("data/", "", 1).replace("/", "-")


def foresee_drawing(profile: Profile, folder: Path, data_root: str = "") -> list[str]:
    """What drawing the pool in ``folder`` takes, a line each: images missing, the model to train or fetch, disk space.

    Raises AimfairError where drawing would, as far as that is known without loading the model.
    """
    side, jobs = presets.find(profile.generator).size, pool_jobs(profile)
    missing = len(missing_images(profile, jobs, folder))
    drawn = f"drawn at {side} px, " if side and side != profile.image_size else ""
    lines = [
        f"{len(jobs)} images by {profile.generator}, {len(jobs) - missing} are there, {missing} to draw: {profile.steps} "
        f"steps each, guidance {profile.guidance:g}, prompts {profile.prompts}, {drawn}kept at {profile.image_size} px "
        f"in {folder}"
    ]
    if not missing:
        return lines
    fetch = 0.0
    if will_be_trained(profile):
        corpus_root(profile, data_root)
        lines.append(f"The generator is trained on {profile.corpus} first, for {profile.generator_minutes:g} minutes")
    elif (model := pipelines.locate(model_of(profile))) and not pipelines.at_hand(model_of(profile)):
        fetch = model.fetch or model.gigabytes
        lines.append(f"The weights are fetched first: {f'about {fetch:g} GB' if fetch else 'their size is not known'}")
    sizes: list[float] = [path.stat().st_size for path in folder.rglob("*.png")] or [
        1.6 * profile.image_size**2
    ]  # of a PNG
    needed = missing * sum(sizes) / len(sizes) / 1e9
    free = shutil.disk_usage(next(p for p in (folder, *folder.absolute().parents) if p.exists())).free / 1e9
    lines.append(
        f"The images take about {needed:.2g} GB of {free:.0f} GB free; the first batch tells how long they take"
    )
    if needed + fetch > free:
        lines.append("The disk is too small for that: make room, or name another folder with --out")
    return lines
