"""Shared by the tests."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toys import toy_faces

from aimfair import methods, models, repairing, study
from aimfair.faces import FaceSet
from aimfair.methods import Bench
from aimfair.study import runs
from aimfair.training import Schedule, fit

sys.path.append(str(Path(__file__).parents[1] / "notebooks"))  # as for chapters: from beyond import ...
sys.path.append(str(Path(__file__).parents[1] / "data" / "prompts"))  # the grammar that wrote the recorded banks


@pytest.fixture(autouse=True)
def threads():
    """A test that changes the number of threads, on which the numbers of a training depend, changes it for itself.

    So does a Dask cluster, which leaves the number that its workers shall start with in the environment.
    """
    before, variables = torch.get_num_threads(), dict(os.environ)
    yield
    torch.set_num_threads(before)
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


@pytest.fixture
def faces():
    return toy_faces


@pytest.fixture(scope="session")
def bench():
    """What a method is given, in small: 120 toy faces, one epoch, a slim network."""
    schedule = Schedule(epochs=1, lr=0.05, batch_size=32, milestones=(), crop_scale=(0.7, 1.0))
    biased = models.build("resnet18-slim", 1)
    fit(biased, toy_faces((6, 54, 54, 6), 1), toy_faces((10,) * 4, 2), schedule, seed=1)

    def biased_model():
        model = models.build("resnet18-slim", 1)
        model.load_state_dict(biased.state_dict())
        return model

    def edited(draw, weakest, strongest):
        """The red tint, which shows the protected attribute, taken away or put on by lot."""
        faces = toy_faces((6, 54, 54, 6), 1)
        images = faces.images.clone()
        protected = (torch.randint(0, 2, (len(faces),), generator=torch.Generator().manual_seed(5)) + draw) % 2
        shift = (90 * (protected - faces.protected)).view(-1, 1, 1)
        images[:, 0] = (images[:, 0] + shift).clamp(0, 255).to(torch.uint8)
        return FaceSet(images, faces.target, protected, faces.names)

    def gaps(score, mode):
        sets = (toy_faces(c, s) for c, s in (((6, 54, 54, 6), 1), ((6, 54, 54, 6), 3), ((30,) * 4, 4)))
        return repairing.gradient_gaps(biased_model(), *sets, score=score, mode=mode, batch_size=32)

    return Bench(
        seed=1,
        device="cpu",
        train=toy_faces((6, 54, 54, 6), 1),
        validation=toy_faces((10,) * 4, 2),
        balanced=toy_faces((30,) * 4, 4),
        biased=toy_faces((6, 54, 54, 6), 3),
        pretraining=schedule,
        finetuning=replace(schedule, ties="first"),
        fresh_model=lambda: models.build("resnet18-slim", 1),
        biased_model=biased_model,
        gaps=gaps,
        edited=edited,
    )


@pytest.fixture(scope="session")
def undecided(bench):
    """Faces of half the size, and rates at which the first epochs leave faces of both classes right and wrong."""
    sets = {name: getattr(bench, name) for name in ("train", "validation", "balanced", "biased")}
    small = {name: replace(faces, images=faces.images[..., ::2, ::2]) for name, faces in sets.items()}
    plans = {name: replace(getattr(bench, name), lr=0.02) for name in ("pretraining", "finetuning")}
    return replace(bench, **small, **plans, shares=(0.1, 0.4, 0.4, 0.1))


@pytest.fixture
def recorded(tmp_path):
    """A study whose runs are made of predictions with a given number of faces classified rightly."""
    opened = study.open_study("smoke", device="cpu", runs_root=str(tmp_path), reuse=False)
    opened.published_root = tmp_path / "published"

    def add(method, seed, right, test_right=50, scores=(), lab=opened, **hyper):
        config = lab.config(method, methods.get(method).hyper(**hyper), seed)
        tables = []
        for split, good in (("validation", right), ("test", test_right)):
            y, s = np.arange(100) % 2, np.arange(100) // 2 % 2
            logit = np.where(np.arange(100) < good, 1, -1) * (2 * y - 1.0)
            rows = {"split": split, "name": np.arange(100).astype(str), "target": y, "protected": s, "logit": logit}
            tables.append(pd.DataFrame(rows))
        return runs.store(opened.runs_root, config, pd.concat(tables, ignore_index=True), dict(scores))

    opened.add = add
    return opened
