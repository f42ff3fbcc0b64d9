"""The synthetic pool of a profile: prompts -> images on disk -> FaceSet, with a generator that is trained if need be."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from aimfair import corpora, datasets, diffusion, prompts, tiny_sd
from aimfair.drawing import sharing
from aimfair.drawing.pipelines import Compute
from aimfair.errors import AimfairError
from aimfair.faces import FaceSet
from aimfair.paths import home, resolve
from aimfair.profiles import Profile


def pool(profile: Profile, device: str = "cpu", data_root: str = "") -> FaceSet:
    """``images_per_group`` synthetic faces of each group, in a fixed order.

    Images are generated where they are missing and kept under ``data/synthetic/``; two processes that want the same
    pool wait for each other. ``generator: folder:PATH`` takes images made elsewhere.
    """
    if profile.generator.startswith("folder:"):
        folder = resolve(profile.generator.removeprefix("folder:"))
    else:
        folder = pool_folder(profile)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            generate(profile, folder, device, data_root)
    catalogue = datasets.load("folder", str(folder), target=profile.target, protected=profile.protected)
    group = 2 * catalogue.labels(profile.target) + catalogue.labels(profile.protected)
    wanted = [np.flatnonzero(group == g)[: profile.images_per_group] for g in range(4)]
    if min(map(len, wanted)) == 0:
        raise AimfairError(
            f"{folder} has no image of some group: {[len(w) for w in wanted]} of (0,0) (0,1) (1,0) (1,1)"
        )
    return catalogue.faces(np.concatenate(wanted), profile.target, profile.protected, profile.image_size)


def pool_folder(profile: Profile) -> Path:
    """Where the pool's images lie: one folder per generator, prompt variant, steps and guidance; never committed."""
    name = profile.generator.strip("/").replace("data/", "", 1).replace("/", "-")
    return home() / "data" / "synthetic" / f"{name}-{profile.prompts}-{profile.steps}-{profile.guidance:g}"


def pool_jobs(profile: Profile) -> list[diffusion.Job]:
    """Every image of the pool, whether it is there or not."""
    bank = prompts.bank(f"{profile.dataset}/{profile.task}", profile.prompts)
    return diffusion.jobs(bank, profile.images_per_group, profile.task)


def generate(
    profile: Profile,
    folder: Path,
    device: str,
    data_root: str,
    compute: Compute | None = None,
    processes: int | None = None,
) -> None:
    """Draw what is missing of the pool; see :func:`aimfair.drawing.sharing.generate` for several processes."""
    jobs = pool_jobs(profile)
    if diffusion.missing(jobs, folder):
        name = str(generator(profile, device, data_root))
        sharing.generate(
            partial(diffusion.load_pipeline, name, compute=compute),
            jobs,
            folder,
            device=device,
            processes=processes,
            steps=profile.steps,
            guidance=profile.guidance,
            size=profile.image_size,
        )


def generator(profile: Profile, device: str, data_root: str, width: int = tiny_sd.WIDTH) -> Path | str:
    """The profile's text-to-image pipeline; a tiny one is first trained on the profile's external corpus if missing."""
    path = home() / profile.generator
    if path.exists() or not profile.corpus:
        return path if path.exists() else profile.generator
    corpus = corpora.load(profile, data_root)
    return tiny_sd.train(
        corpus.images,
        corpus.captions,
        path,
        focus=corpus.focus,
        labels=corpus.labels,
        minutes=profile.generator_minutes,
        seed=0,
        device=device,
        about=profile.corpus,
        width=width,
    )


def generator_identity(profile: Profile) -> str:
    """The generator's name and what its images depend on beside it, so that runs with other images are not found.

    For one that the repository ships, a digest of its training record; for one that is trained here, its corpus and
    budget of minutes; nothing more for images made elsewhere and for models of the hub.
    """
    generator = profile.generator
    record = home() / generator / "training.json"
    if generator.startswith("data/tiny-sd/") and record.exists():
        digest = hashlib.blake2b(json.dumps(json.loads(record.read_text()), sort_keys=True).encode(), digest_size=4)
        return f"{generator}@{digest.hexdigest()}"
    return f"{generator}@{profile.corpus}-{profile.generator_minutes:g}" if profile.corpus else generator
