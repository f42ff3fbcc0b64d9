"""The whole pipeline on photographs, in small: a made-up CelebA in the official layout, from captions to the published
chapter; and every method on that and on a made-up UTKFace."""

import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from aimfair import cli, methods, sampling, study
from aimfair.book import chapters
from aimfair.book.chapters import published_folder
from aimfair.book.execution import execute
from aimfair.book.notebook import code_cells, read
from aimfair.book.publishing import publish
from aimfair.datasets import faceworld
from aimfair.environment import home
from aimfair.generate import corpora

PROFILE = "celeba-smiling-male"
SMALL = {
    "train_images": 120,
    "minority": 0.2,
    "images_per_group": 30,
    "steps": 2,
    "generator_minutes": 0.2,
    "pretrain_epochs": 1,
    "finetune_epochs": 1,
    "batch_size": 32,
    "seeds": 1,
}
TINY = {
    "train_images": 60,
    "minority": 0.2,
    "images_per_group": 16,
    "steps": 1,
    "pretrain_epochs": 1,
    "finetune_epochs": 1,
    "batch_size": 16,
    "image_size": 32,
}
RACES = {"0": (36, 10, 20, 10, 5), "1": (50, 10, 20, 10, 8)}
"""Faces of each gender of UTKFace and each race, in its order: of the white men there is not one to spare."""
HAIR = tuple(f"{kind}_Hair" for kind in ("Black", "Brown", "Blond", "Gray", "Straight", "Wavy"))
NAMES = (*corpora.WORDS["celeba"]["words"], *HAIR, "Bald", "Male", "No_Beard", "Smiling", "Young")
SPLITS = {"train": 0, "validation": 1, "test": 2}


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    """2,000 drawn faces of 500 people in CelebA's layout; what FaceWorld does not know is drawn by lot."""
    root = tmp_path_factory.mktemp("data") / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    world = faceworld.catalogue(train=1600, validation=200, test=200, corpus=0)
    images = world.read(np.arange(len(world)), 64).permute(0, 2, 3, 1).numpy()
    rng = np.random.default_rng(0)
    table = {n: world.attributes[n] if n in world.attributes else rng.random(len(world)) < 0.3 for n in NAMES}
    names = [f"{i:06d}.jpg" for i in range(1, len(world) + 1)]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(np.pad(image, ((7, 7), (0, 0), (0, 0)), "edge")).save(root / "img_align_celeba" / name)
    signs = np.where(np.stack([np.asarray(table[n]) > 0 for n in NAMES], 1), 1, -1)
    rows = "\n".join(f"{name} {' '.join(map(str, row))}" for name, row in zip(names, signs, strict=True))
    (root / "list_attr_celeba.txt").write_text(f"{len(names)}\n{' '.join(NAMES)}\n{rows}\n")
    where = world.attributes["split"].map(SPLITS).astype(int)
    lines = zip(names, where, strict=True)
    (root / "list_eval_partition.txt").write_text("".join(f"{name} {s}\n" for name, s in lines))
    people = (f"{name} {s * 1000 + i % 400}\n" for i, (name, s) in enumerate(zip(names, where, strict=True)))
    (root / "identity_CelebA.txt").write_text("".join(people))
    return root


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout of its own with what this chapter needs."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("profiles", "methods"):
        shutil.copytree(home() / "notebooks" / folder, root / "notebooks" / folder)
    shutil.copy(home() / "notebooks" / "20_real_faces.ipynb", root / "notebooks")
    for folder in ("prompts", "paper"):
        shutil.copytree(home() / "data" / folder, root / "data" / folder)
    return root


@pytest.fixture(scope="module")
def executed(celeba, checkout):
    """The chapter, run from nothing: generator, pool, models, gaps, fine-tuning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIMFAIR_HOME", str(checkout))
        patch.delenv("AIMFAIR_RUNS", raising=False)  # which the comparison of the notebooks sets
        given = {"profile": PROFILE, "data_root": str(celeba), "reuse": False, **SMALL}
        (path,) = chapters.run(PROFILE, given)
    return path


@pytest.fixture
def there(checkout, monkeypatch):
    monkeypatch.setenv("AIMFAIR_HOME", str(checkout))
    monkeypatch.delenv("AIMFAIR_RUNS", raising=False)


def said(path):
    """What the last cell prints."""
    return code_cells(read(path))[-1].outputs[-1].text


def test_the_chapter_runs_from_nothing_to_its_last_table(executed):
    assert "AIM-Fair" in said(executed) and "Full fine-tuning" in said(executed)


def test_no_person_is_in_the_corpus_and_in_the_classifiers_faces(executed, there, celeba):
    lab = study.open_study(PROFILE, changes=SMALL, data_root=str(celeba))
    who = lab.catalogue.attributes["identity"].to_numpy()
    sets = {name: set(who[index]) for name, index in lab.split.items()}
    assert not sets["corpus"] & (sets["train"] | sets["validation"] | sets["test"])


def test_the_published_page_shows_numbers_and_no_face(executed, there):
    page = publish(executed, published_folder(PROFILE))
    shown = [c for c in code_cells(read(page)) if any("image/png" in o.get("data", {}) for o in c.outputs)]
    assert shown and all("figure-without-faces" in c.metadata["tags"] for c in shown)


def test_the_chapter_stands_on_published_runs_without_the_faces(executed, there, celeba, tmp_path):
    for changes in (SMALL, SMALL | {"minority": 1.0}):
        study.open_study(PROFILE, changes=changes, data_root=str(celeba)).publish()
    again = tmp_path / "again.ipynb"
    runs = str(tmp_path / "none")
    execute(home() / "notebooks" / "20_real_faces.ipynb", again, {"profile": PROFILE, "runs_root": runs, **SMALL})
    assert said(again) == said(executed)


@pytest.mark.parametrize("corpus", ["", "celeba"], ids=["nobody judges", "a judge of the corpus"])
def test_the_chapter_takes_faces_that_were_made_elsewhere(corpus, celeba, there, tmp_path):
    """No generator, no training record, no autoencoder; a judge where a corpus is named."""
    world = faceworld.catalogue(style="web", train=0, validation=0, test=0, corpus=400)
    images = world.read(np.arange(len(world)), 64).permute(0, 2, 3, 1).numpy()
    for i, (t, p) in enumerate(zip(world.attributes["Smiling"], world.attributes["Male"], strict=True)):
        (tmp_path / "made" / f"{t}_{p}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(tmp_path / "made" / f"{t}_{p}" / f"{i}.png")
    made = {"generator": f"folder:{tmp_path / 'made'}", "corpus": corpus}
    path = tmp_path / "chapter.ipynb"
    given = {"profile": PROFILE, "data_root": str(celeba), "runs_root": str(tmp_path / "runs"), "reuse": False}
    execute(home() / "notebooks" / "20_real_faces.ipynb", path, given | SMALL | made)
    shown = "".join(str(cell.outputs) for cell in code_cells(read(path)))
    assert "AIM-Fair" in said(path) and "Its autoencoder is none of this book" in shown
    assert ("Nobody judged the faces" in shown) == ("*No judge:*" in shown) == (not corpus)
    assert "faces come from made" in shown and str(tmp_path) not in shown  # a page tells no folder of this machine


@pytest.fixture
def utkface(tmp_path, monkeypatch):
    """Noise under names as in UTKFace, one of them malformed; its splits with 9 test and 2 validation faces per group in
    place of 800 and 150."""
    folder = tmp_path / "UTKFace"
    folder.mkdir()
    of_all = [f"{gender}_{race}" for gender, counts in RACES.items() for race, n in enumerate(counts) for _ in range(n)]
    names = [f"{1 + i % 116}_{whose}_{20170109150557335 + i}" for i, whose in enumerate(of_all)]
    rng = np.random.default_rng(0)
    for name in [*names, "61_1_20170109150557335"]:
        pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg.chip.jpg", "JPEG")
    few = partial(sampling.draw_splits, test_per_group=9, validation_per_group=2)
    monkeypatch.setattr(sampling, "draw_splits", few)
    return tmp_path


def test_every_method_runs_on_photographs_by_one_command(utkface, tmp_path, capsys, monkeypatch):
    clone = tmp_path / "clone"  # so that its synthetic faces do not stay in the checkout
    (clone / "data").mkdir(parents=True)
    for part in ("notebooks", "data/prompts", "data/tiny-sd", "data/paper"):
        (clone / part).symlink_to(home() / part)
    monkeypatch.setenv("AIMFAIR_HOME", str(clone))
    given = [
        part
        for name, value in (TINY | {"generator": "data/tiny-sd/fairface"}).items()
        for part in ("-p", f"{name}={value}")
    ]
    where = ["--data", str(utkface), "--runs", str(tmp_path / "runs"), "--device", "cpu", "--no-reuse"]
    status = cli.main(["run", "--methods", "all", "--profile", "utkface", *where, *given])
    said = capsys.readouterr()
    assert status == 0, said.err.split("\r")[-1]
    lines = said.out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(methods.registry())
    assert all(0 <= float(line.split()[2]) <= 100 for line in lines)
