"""The record of measurements: a new one joins those that are there; a file of something else is left as it is."""

import json

import pytest

from aimfair.book import bench
from aimfair.environment import AimfairError

ROWS = [("training", 2900.0, "images/s"), ("evaluation", 12000.0, "images/s")]


def test_a_recording_keeps_what_was_recorded_before(tmp_path):
    path = tmp_path / "new" / "benchmarks.json"
    bench.record(ROWS, "cpu", path)
    bench.record(ROWS[:1], "cpu", path)
    first, second = json.loads(path.read_text())
    assert first["machine"] == second["machine"] == bench.machine("cpu") and first["rows"] == [list(r) for r in ROWS]
    assert second["rows"] == [list(ROWS[0])]


@pytest.mark.parametrize("text", ["notes", '{"a": 1}', "[1]", '[{"machine": "mine"}]'])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(AimfairError, match="holds no measurements"):
        bench.record(ROWS, "cpu", path)
    assert path.read_text() == text
    with pytest.raises(AimfairError, match="cannot write"):
        bench.record(ROWS, "cpu", path / "below.json")
