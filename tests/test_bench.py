"""The record of measurements: what was not measured again stays."""

import json

import pytest

from aimfair.book import bench
from aimfair.environment import AimfairError

GENERAL = [("training", 2900.0, "images/s"), ("evaluation", 12000.0, "images/s")]
DRAWN = [
    ("Stable Diffusion, DDIM", 3.0, "images/s"),
    ("  times the official settings", 1.0, "x"),
    ("Stable Diffusion, DPM-Solver++", 12.0, "images/s"),
    ("  times the official settings", 4.0, "x"),
]


def entries(path):
    return [(e["machine"], e["date"], [tuple(row) for row in e["rows"]]) for e in json.loads(path.read_text())]


def test_a_recording_keeps_what_it_did_not_measure(tmp_path):
    path, here = tmp_path / "new" / "benchmarks.json", bench.machine("cpu")
    bench.record(GENERAL, "cpu", path)
    bench.record(DRAWN, "cpu", path)
    (first,) = entries(path)
    assert first[0] == here and first[2] == GENERAL + DRAWN
    faster = [("Stable Diffusion, DPM-Solver++", 15.0, "images/s"), ("  times the official settings", 5.0, "x")]
    bench.record(faster, "cpu", path)
    assert entries(path)[0][2] == GENERAL + DRAWN[:2] + faster


def test_what_was_measured_on_another_day_or_machine_keeps_its_date(tmp_path):
    path = tmp_path / "benchmarks.json"
    old = [{"machine": m, "date": "2026-01-02", "rows": GENERAL} for m in ("another", bench.machine("cpu"))]
    path.write_text(json.dumps(old))
    bench.record(GENERAL[:1], "cpu", path)
    another, before, now = entries(path)
    assert (another[0], another[2]) == ("another", GENERAL)
    assert before[1:] == ("2026-01-02", GENERAL[1:]) and now[1] > "2026-01-02" and now[2] == GENERAL[:1]
    bench.record(GENERAL, "cpu", path)
    assert [found[2] for found in entries(path)] == [GENERAL, GENERAL]


def test_a_file_of_something_else_is_left_as_it_is(tmp_path):
    path = tmp_path / "notes.json"
    for text in ("notes", '{"a": 1}', "[1]"):
        path.write_text(text)
        with pytest.raises(AimfairError, match=r"holds no measurements .* name another file with --record"):
            bench.record(GENERAL, "cpu", path)
        assert path.read_text() == text
    with pytest.raises(AimfairError, match="cannot write"):
        bench.record(GENERAL, "cpu", path / "below.json")
