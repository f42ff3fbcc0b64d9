"""``aimfair split``: the list of a study's faces, compared with the book's and with a file."""

from __future__ import annotations

import csv

import pytest

from aimfair import cli, sampling
from aimfair.commands import split
from aimfair.datasets import Catalogue
from aimfair.environment import home


def said(capsys):
    return capsys.readouterr().out


def test_every_study_of_faceworld_still_has_the_faces_of_its_published_runs(capsys):
    names = [name for name in split.known() if name.startswith("demo")]
    assert len(names) == 3
    for name in names:
        assert cli.main(["split", "--profile", name]) == 0
        assert "The faces behind the book's runs." in said(capsys)


def test_a_hash_stands_for_published_runs_only():
    published = home() / "data" / "published"
    assert split.known() and all(any((published / name).glob("*.jsonl")) for name in split.known())


def test_another_copy_of_the_data_is_told(capsys, monkeypatch):
    monkeypatch.setattr(split, "known", lambda: {"demo": "0" * 64})
    assert cli.main(["split"]) == 1
    assert f"Not the faces behind the book's runs, which have {'0' * 64}" in said(capsys)
    assert cli.main(["split", "--profile", "smoke"]) == 0
    assert "has no split of this profile" in said(capsys)


def test_a_changed_profile_is_compared_with_nothing_where_the_change_decides_the_faces(capsys):
    assert cli.main(["split", "-p", "train_images=2000"]) == 0
    assert "what decides it was changed" in said(capsys)
    assert cli.main(["split", "-p", "pretrain_epochs=3"]) == 0
    assert "The faces behind the book's runs." in said(capsys)


def test_a_list_is_written_once_then_compared(capsys, tmp_path):
    file = tmp_path / "mine.csv"
    small = ["split", str(file), "--profile", "smoke"]
    assert cli.main(small) == 0 and f"written to {file}" in said(capsys)
    before = file.read_bytes()
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))[2:]
    parts = sampling.read_split(file)
    assert {part: len(names) for part, names in parts.items()} == {"train": 400, "validation": 200, "test": 8000}
    assert len(rows) == 8600
    assert cli.main(small) == 0 and "lists the same faces" in said(capsys)
    assert cli.main([*small, "-p", "train_images=396"]) == 1
    assert "train: 400 listed, 396 here, 396 of them in both" in said(capsys)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda parts: parts | {"test": parts["test"][::-1]}, "8,000 of them in both, in another order"),
        (lambda parts: {"train": parts["train"], "test": parts["test"]}, "validation: 0 listed, 200 here"),
        (lambda parts: parts | {"corpus": parts["test"][:3]}, "corpus: 3 listed, 0 here, 0 of them in both"),
    ],
)
def test_every_difference_is_told(capsys, tmp_path, change, told):
    file = tmp_path / "theirs.csv"
    assert cli.main(["split", str(file), "--profile", "smoke"]) == 0
    sampling.write_split(file, change(sampling.read_split(file)))
    said(capsys)
    assert cli.main(["split", str(file), "--profile", "smoke"]) == 1
    assert told in said(capsys)


def test_a_file_that_is_no_list_is_refused(capsys, tmp_path):
    file = tmp_path / "notes.csv"
    file.write_text("name\n")
    assert cli.main(["split", str(file), "--profile", "smoke"]) == 2
    assert "does not match the sha256" in capsys.readouterr().err
    assert file.read_text() == "name\n"


def test_no_face_is_read_for_it(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("faces were read")

    monkeypatch.setattr(Catalogue, "faces", refuse)
    assert cli.main(["split", "--profile", "smoke"]) == 0
