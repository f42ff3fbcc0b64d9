"""``aimfair split``: the list of a study's faces, compared with the book's and with a file."""

from __future__ import annotations

import pytest

from aimfair import cli, sampling
from aimfair.datasets import Catalogue
from aimfair.environment import home


@pytest.fixture(autouse=True)
def no_face_is_read(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("faces were read")

    monkeypatch.setattr(Catalogue, "faces", refuse)


def run(capsys, *arguments):
    """Exit status and what was printed."""
    status = cli.main(["split", *arguments])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_the_studies_of_published_runs_still_have_their_faces(capsys):
    published = home() / "data" / "published"
    assert cli.known_splits() and all(any((published / name).glob("*.0001.parquet")) for name in cli.known_splits())
    names = [name for name in cli.known_splits() if name.startswith("demo")]
    assert len(names) == 3
    for name in names:
        status, said = run(capsys, "--profile", name)
        assert status == 0 and "The faces behind the book's runs." in said


def test_another_copy_of_the_data_is_told(capsys, monkeypatch):
    monkeypatch.setattr(cli, "known_splits", lambda: {"demo": "0" * 64})
    assert run(capsys)[0] == 1
    assert "no split of such a study" in run(capsys, "--profile", "smoke")[1]


def test_a_changed_profile_is_compared_with_nothing_where_the_change_decides_the_faces(capsys):
    assert "no split of such a study" in run(capsys, "-p", "train_images=2000")[1]
    assert "The faces behind the book's runs." in run(capsys, "-p", "pretrain_epochs=3")[1]


def test_a_list_is_written_once_then_compared(capsys, tmp_path):
    file = tmp_path / "mine.csv"
    small = (str(file), "--profile", "smoke")
    assert run(capsys, *small)[0] == 0
    before = file.read_bytes()
    parts = sampling.read_split(file)
    assert {part: len(names) for part, names in parts.items()} == {"train": 400, "validation": 200, "test": 8000}
    status, said = run(capsys, *small)
    assert status == 0 and "lists the same faces" in said
    status, said = run(capsys, *small, "-p", "train_images=396")
    assert status == 1 and "train: 400 listed, 396 here, 396 of them in both" in said
    assert file.read_bytes() == before
    for change, told in (
        ({"test": parts["test"][::-1]}, "8,000 of them in both, in another order"),
        ({"validation": []}, "validation: 0 listed, 200 here"),
        ({"corpus": parts["test"][:3]}, "corpus: 3 listed, 0 here, 0 of them in both"),
    ):
        sampling.write_split(file, parts | change)
        status, said = run(capsys, *small)
        assert status == 1 and told in said
    file.write_text("name\n")
    status, said = run(capsys, *small)
    assert status == 2 and "does not match the sha256" in said and file.read_text() == "name\n"
