"""The record of measurements: a new one joins those that are there; a file of something else is left as it is."""

import json

import pytest
import torch

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


def test_a_measurement_is_made_again_beside_a_busy_process_with_all_threads_and_with_one():
    threads, seen = torch.get_num_threads(), []

    def measure():
        seen.append(torch.get_num_threads())
        return [("training", 100.0 / len(seen), "images/s"), ("share", 90.0, "%")]

    rows = bench.beside_another(measure(), measure)
    assert seen == [threads, *dict.fromkeys((threads, 1))] and torch.get_num_threads() == threads
    assert [value for _, value, unit in rows[2:]] == [pytest.approx(100 / n) for n in range(2, len(seen) + 1)]


@pytest.mark.parametrize("text", ["notes", '{"a": 1}', "[1]", '[{"machine": "mine"}]'])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(AimfairError, match="holds no measurements"):
        bench.record(ROWS, "cpu", path)
    assert path.read_text() == text
    with pytest.raises(AimfairError, match="cannot write"):
        bench.record(ROWS, "cpu", path / "below.json")
