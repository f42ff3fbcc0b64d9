"""What is kept is written aside and renamed, with the modes of the umask; what is read-only can be read."""

import errno
import os
import stat
from pathlib import Path

import filelock
import pandas as pd
import pytest
from nbformat.v4 import new_notebook

from aimfair import models, prompts, sampling
from aimfair.book import bench, notebook
from aimfair.environment import AimfairError, aside, locked
from aimfair.study import profiles, runs, tables

CONFIG = {"method": "erm", "seed": 100}
FACES = pd.DataFrame({"split": ["test"], "name": ["a"], "target": [1], "protected": [0], "logit": [0.5]})
WRITERS = {
    "split.csv": lambda path: sampling.write_split(path, {"train": ["a"]}),
    "bank.json": lambda path: prompts.write({"groups": {}}, path),
    "model.safetensors": lambda path: models.save(models.build("resnet18-slim", 0), path),
    "erm.0001.parquet": lambda path: runs._write(FACES, path),
    "table.md": lambda path: tables.export(pd.DataFrame({"a": [1]}), path),
    "chapter.ipynb": lambda path: notebook.write(new_notebook(), path),
    "schema.json": lambda path: profiles.write_schema(),
    "benchmarks.json": lambda path: bench.record([("training", 1.0, "images/s")], "cpu", path),
}


def modes(folder):
    return {oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(name, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "folder", lambda: tmp_path)
    path = tmp_path / name
    path.write_text("[]")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        for way in ("replace", "rename"):
            patch.setattr(Path, way, lambda *_: (_ for _ in ()).throw(full))
            patch.setattr(os, way, lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(AimfairError, match=f"cannot write .*{name} .No space left on device.: "):
            WRITERS[name](path)
    assert path.read_text() == "[]" and list(tmp_path.iterdir()) == [path]
    WRITERS[name](path)
    assert path.read_bytes() != b"[]" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mask", "mode", "folder"), [(0o022, "0o644", "0o755"), (0o027, "0o640", "0o750")])
def test_a_run_and_its_weights_have_the_modes_of_the_umask(mask, mode, folder, tmp_path):
    before = os.umask(mask)
    try:
        run = runs.store(tmp_path, CONFIG, FACES, {}, models.build("resnet18-slim", 0))
        with aside(tmp_path / "pipeline") as partial:  # as a library would leave it that makes private files
            partial.mkdir(0o700)
            (partial / "weights").touch(0o600)
    finally:
        os.umask(before)
    assert modes(tmp_path) == {mode} and len(list(run.folder.iterdir())) == 4
    assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.iterdir()} == {folder}


def test_a_run_that_another_process_finished_first_stands(tmp_path):
    first = runs.store(tmp_path, CONFIG, FACES, {"a": 1})
    assert runs.store(tmp_path, CONFIG, FACES, {"a": 2}).scores == first.scores == {"a": 1}
    assert list(tmp_path.iterdir()) == [first.folder]


def test_a_run_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    run = runs.store(tmp_path, CONFIG, FACES, {})

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(pd, "read_parquet", refuse)
    with pytest.raises(AimfairError, match="may not be read by this user .permission denied.$"):
        runs.load(run.folder)


def test_what_failed_leaves_nothing(tmp_path):
    for left in ("a file", "a folder"):
        with pytest.raises(ZeroDivisionError), aside(tmp_path / "x") as partial:
            partial.touch() if left == "a file" else (partial / "deep").mkdir(parents=True)
            raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_where_only_a_lock_fails_reading_goes_on(number, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    with locked(tmp_path / "a" / "x.lock"), locked(tmp_path / "a" / "x.lock"):
        pass
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    if number == errno.ENOSPC:
        with pytest.raises(OSError), locked(tmp_path / "y.lock"):
            pass
    else:
        with locked(tmp_path / "y.lock"):
            assert True
