"""Progress where nobody watches a bar: a line now and then, or nothing."""

import sys
import time

import pytest

from aimfair import progress as module
from aimfair.progress import progress


@pytest.fixture
def log(monkeypatch):
    """A process whose standard error is no terminal, and that is no notebook."""
    monkeypatch.delenv("AIMFAIR_PROGRESS", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


def slowly(number, pause=0.02):
    for i in range(number):
        time.sleep(pause)
        yield i


def test_a_log_gets_lines_with_the_time_left(log, monkeypatch, capsys):
    monkeypatch.setattr(module, "SPEAK_EVERY", 0.05)
    assert list(progress(slowly(40), "counting", 50, done=10)) == list(range(40))
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 40 and all(line.startswith("counting ") and line.endswith(" left") for line in lines)
    shares = [int(line.split()[1]) for line in lines]
    assert shares == sorted(shares) and shares[0] >= 20 and "\r" not in "".join(lines)
    assert list(progress(slowly(10), "unpacking")) == list(range(10))
    assert all(line.endswith(" so far") for line in capsys.readouterr().err.splitlines())


def test_what_is_soon_done_says_nothing(log, capsys):
    assert list(progress(slowly(30, 0), "counting", 30)) == list(range(30))
    assert capsys.readouterr().err == ""


def test_off_keeps_it_silent(log, monkeypatch, capsys):
    monkeypatch.setattr(module, "SPEAK_EVERY", 0.01)
    monkeypatch.setenv("AIMFAIR_PROGRESS", "off")
    assert list(progress(slowly(10), "counting", 10)) == list(range(10))
    assert capsys.readouterr().err == ""
