"""Running one notebook by papermill: what is refused, what is kept, what a failure says."""

import json
import os
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from small_book import chapter, executed, write

from aimfair.book import chapters
from aimfair.book.execution import (
    check_parameters,
    code_hash,
    execute,
    is_current,
    notebook_parameters,
    refresh,
    stamp_of,
)
from aimfair.book.notebook import code_cells, faults, read
from aimfair.environment import AimfairError


def small(folder, *sources):
    return write(chapter(*(new_code_cell(source) for source in sources)), folder / "notebooks" / "00_small.ipynb")


def test_parameters_are_read_with_their_types(tmp_path):
    found = notebook_parameters(small(tmp_path))
    assert list(found) == ["profile", "seed", "device", "data_root", "runs_root", "reuse", "shift"]
    assert found["seed"] == "int"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sede": 1}, "unknown parameter 'sede'; did you mean 'seed'?"),
        ({"seed": "three"}, "parameter seed must be int, got 'three' (str)"),
        ({"seed": True}, "parameter seed must be int, got True (bool)"),
        ({"reuse": "yes"}, "parameter reuse must be bool, got 'yes' (str)"),
        ({"shift": "far"}, "parameter shift must be float"),
        ({"train_images": 2.5}, "parameter train_images must be int"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_starts(tmp_path, given, says):
    notebook = small(tmp_path, "raise SystemError('this cell must not run')")
    with pytest.raises(AimfairError) as refused:
        execute(notebook, tmp_path / "out" / "00_small.ipynb", given)
    assert says in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_declared_parameters_and_fields_of_the_profile_are_taken(tmp_path):
    check_parameters(small(tmp_path), {"seed": 3, "shift": 1, "train_images": 800, "minority": 0.25})


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int | None", (3, None), "3"),
        ("Optional[int]", (3, None), "3"),
        ("Literal['a', 'b']", ("a",), "c"),
        ("list[str]", (["a"],), "a"),
        ("np.ndarray", ([1], "a"), ...),
    ],
)
def test_a_parameter_may_be_of_any_type(tmp_path, kind, good, bad):
    path = small(tmp_path)
    notebook = read(path)
    notebook.cells[1].source += f"\nx: {kind} = None"
    nbformat.write(notebook, path)
    for value in good:
        check_parameters(path, {"x": value})
    if bad is not ...:
        with pytest.raises(AimfairError, match="parameter x must be "):
            check_parameters(path, {"x": bad})


def test_a_notebook_without_a_kernelspec_runs(tmp_path):
    path = small(tmp_path, "print(seed)")
    notebook = read(path)
    notebook.metadata = nbformat.from_dict({})
    nbformat.write(notebook, path)
    execute(path, tmp_path / "out" / "00_small.ipynb", {"seed": 7})
    assert code_cells(read(tmp_path / "out" / "00_small.ipynb"))[-1].outputs[0].text == "7\n"


def test_a_finished_run_is_stamped_and_recognised(tmp_path):
    before = dict(os.environ)
    source = "from pathlib import Path\nprint(Path.cwd().name, seed, shift)"
    notebook, out = small(tmp_path, source), tmp_path / "out" / "00_small.ipynb"
    out.parent.mkdir()
    out.with_name("00_small.failed.ipynb").touch()  # of an earlier try
    seen = []
    given = {"seed": 300, "shift": 2, "device": "cpu"}
    stamp = execute(notebook, out, given, tell=lambda *told: seen.append(told))
    assert code_cells(read(out))[-1].outputs[0].text == "notebooks 300 2\n"
    assert dict(os.environ) == before
    assert not faults(read(out)) and seen
    assert stamp_of(out) == stamp and stamp.seconds > 0
    assert is_current(stamp, notebook, given)
    assert not is_current(stamp, notebook, {**given, "seed": 301})
    assert sorted(path.name for path in out.parent.iterdir()) == ["00_small.ipynb", "00_small.json", "00_small.log"]
    small(tmp_path, source + "  # changed")
    assert not is_current(stamp, notebook, given)


def test_a_run_is_not_current_once_other_runs_are_published(tmp_path, monkeypatch):
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path))
    published = tmp_path / "data" / "published" / "demo"
    for folder in (published, tmp_path / "notebooks" / "profiles"):
        folder.mkdir(parents=True)
    notebook = small(tmp_path, "1")
    before = code_hash(notebook)
    assert before == code_hash(notebook)
    (published / "erm.0002.parquet").write_text("one more batch")
    assert before != code_hash(notebook)


def test_whoever_waits_for_a_long_cell_is_told_what_it_is_at(tmp_path):
    source = "import time\nfrom aimfair.progress import progress\nfor _ in progress(range(60), 'counting'):\n    time.sleep(0.05)"
    notebook, out, seen = small(tmp_path, source), tmp_path / "out" / "00_small.ipynb", []
    execute(notebook, out, {}, tell=lambda done, total, doing: seen.append((done, total, doing)))
    assert any(re.fullmatch(r"counting \d+ %, \d\d:\d\d left", doing) for *_, doing in seen), seen
    assert not code_cells(read(out))[-1].outputs  # what a bar would have left there
    assert sorted(path.name for path in out.parent.iterdir()) == ["00_small.ipynb", "00_small.json", "00_small.log"]


def test_progress_fits_a_line_of_the_terminal_and_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(chapters, "CLEAR", "<clear>")
    monkeypatch.setenv("COLUMNS", "60")
    tell = chapters.show_progress("[1/2] 04_generation", [600.0, 30.0])
    tell(3, 20, "")
    tell(3, 20, "autoencoder 34 %, 12:31 left, and so on and on")
    first, second = capsys.readouterr().out.split("<clear>")[1:]
    assert first == "[1/2] 04_generation: cell 4 of 20, 0 s, about 10 min 30 s left in all"[:59]
    assert len(second) == 59

    monkeypatch.setattr(chapters, "CLEAR", "")
    tell = chapters.show_progress("[1/2] 04_generation", [None, None])
    tell(3, 20, "autoencoder 34 %, 12:31 left")
    assert capsys.readouterr().out == "[1/2] 04_generation: running\n"
    monkeypatch.setattr(chapters, "SPEAK_EVERY", -1.0)
    tell(3, 20, "autoencoder 34 %, 12:31 left")
    assert capsys.readouterr().out == "[1/2] 04_generation: cell 4 of 20, 0 s (autoencoder 34 %, 12:31 left)\n"


def test_a_failing_cell_is_named_and_nothing_is_passed_off_as_a_result(tmp_path):
    cells = [
        "value = 1",
        "from aimfair.environment import AimfairError\nraise AimfairError('group (1, 1) is too small')",
    ]
    notebook, out = small(tmp_path, *cells), tmp_path / "out" / "00_small.ipynb"
    executed(read(notebook), out, seed=100)
    old = out.read_bytes()
    with pytest.raises(AimfairError) as failed:
        execute(notebook, out, {})
    message = str(failed.value)
    assert (
        "stopped in code cell 3 of 3 (`from aimfair.environment import AimfairError`): group (1, 1) is too small"
        in message
    )
    assert "\n" not in message
    assert out.read_bytes() == old and not is_current(stamp_of(out), notebook, {})
    assert out.with_name("00_small.failed.ipynb").exists()


def test_a_dead_kernel_is_reported_with_the_cell_that_was_running(tmp_path):
    notebook, out = small(tmp_path, "import os", "os._exit(9)", "print('never')"), tmp_path / "out" / "00_small.ipynb"
    with pytest.raises(AimfairError, match=r"stopped in code cell 3 of 4 \(`os\._exit\(9\)`\): its kernel died"):
        execute(notebook, out, {})
    assert not out.exists()


def test_a_time_out_is_reported_with_the_cell_that_was_running(tmp_path):
    notebook, out = small(tmp_path, "import time", "time.sleep(60)"), tmp_path / "out" / "00_small.ipynb"
    with pytest.raises(AimfairError, match=r"code cell 3 of 3 \(`time\.sleep\(60\)`\): it took longer than 1 s"):
        execute(notebook, out, {}, timeout=1)


@pytest.mark.parametrize("content", [None, "", "a folder", '{"cells": 1}'], ids=["missing", "empty", "folder", "other"])
def test_what_is_no_notebook_is_not_refreshed_but_named(tmp_path, content):
    path = tmp_path / "nosuch.ipynb"
    if content == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(AimfairError, match=r"(no notebook|nosuch.ipynb is not a notebook)"):
        refresh(path)


def test_refreshing_twice_gives_the_same_bytes(tmp_path):
    notebook = small(
        tmp_path, "import sys\nprint('a')\nprint('b')", "from matplotlib import pyplot\npyplot.plot([1, 2]);"
    )
    assert refresh(notebook)
    first = notebook.read_bytes()
    assert not refresh(notebook)
    assert notebook.read_bytes() == first
    stored = json.loads(first)
    assert "papermill" not in stored["metadata"] and "injected-parameters" not in first.decode()
    assert [cell["execution_count"] for cell in stored["cells"] if cell["cell_type"] == "code"] == [1, 2, 3]


def test_a_notebook_that_is_none_is_refused(tmp_path):
    path = tmp_path / "notebooks" / "00_small.ipynb"
    with pytest.raises(AimfairError, match="no notebook"):
        notebook_parameters(path)
    path.parent.mkdir()
    path.write_text("{not json")
    with pytest.raises(AimfairError, match="is not a notebook"):
        notebook_parameters(path)
