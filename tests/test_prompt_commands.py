"""``aimfair prompts`` as a user types it."""

import json

import pytest
from stub_llm import numbered, serving
from test_writing import KEY, good, recorded

from aimfair import prompts
from aimfair.cli import main
from aimfair.prompts import writers

TASK = "celeba/Smiling_Male"


def test_list_and_show(capsys):
    assert main(["prompts", "show"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == prompts.banks()
    assert main(["prompts", "show", TASK, "--variant", "no-pose", "--group", "1_0"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 50 and all("smiling" in line and "head t" not in line for line in shown)
    assert main(["prompts", "show", TASK, "--instruction"]) == 0
    assert capsys.readouterr().out.count("Target attribute, named in every prompt:") == 4


def test_check(capsys, tmp_path):
    assert main(["prompts", "check", TASK]) == 0
    assert "200 prompts, the longest" in capsys.readouterr().out
    record = prompts.read(TASK)
    record["groups"]["1_0"]["prompts"][3]["text"] = "Portrait face photo of a cat with head facing the camera."
    prompts.write(record, tmp_path / "mine.json")
    assert main(["prompts", "check", str(tmp_path / "mine.json")]) == 1
    assert "1_0/03: does not name Smiling = 1" in capsys.readouterr().out
    assert main(["prompts", "check", "faceworld/Smiling_Male", "--tokenizer", "data/tiny-sd/faceworld"]) == 0
    assert "of 40 tokens: nothing found" in capsys.readouterr().out


def test_write(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(writers.KEY, KEY)
    out = tmp_path / "Smiling_Male@mine.json"
    command = ["prompts", "write", "--task", TASK, "--writer", "openai_compatible", "--model", "m", "--out", str(out)]
    with serving(lambda request, n: good(request) if n < 2 else "I am tired.") as stub:
        assert main([*command, "--url", stub.url, "--per-group", "4", "--rounds", "1"]) == 2
    shown = capsys.readouterr()
    assert (
        "group 0_0, round 1: 4 accepted; 4 of 4" in shown.out and "no sentence in the reply: 'I am tired.'" in shown.out
    )
    assert "8 prompts are kept" in shown.err and "Traceback" not in shown.err
    partial = out.with_name(out.name + ".partial")
    with serving(lambda request, n: numbered(recorded(request))) as stub:
        draft = json.loads(partial.read_text())
        draft["made_by"]["url"] = stub.url
        partial.write_text(json.dumps(draft))
        assert main([*command, "--url", stub.url, "--per-group", "4"]) == 0
    shown = capsys.readouterr()
    assert f"The bank is in {out}" in shown.out and "-p prompts=contextual@mine" in shown.out
    assert KEY not in shown.out + shown.err + out.read_text() and not partial.exists()
    assert main(["prompts", "check", str(out)]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "celeba/Bald_Male"], "no prompt bank 'celeba/Bald_Male'"),
        (["show", TASK, "--variant", "poetic"], "no variant 'poetic'; there are: contextual"),
        (["show", TASK, "--group", "2_0"], "no group '2_0'; there are: 0_0"),
        (["check", "none.json"], "none.json cannot be read"),
        (["write", "--task", TASK, "--writer", "parrot"], "no writer 'parrot'"),
        (["write", "--task", TASK, "--writer", "openai_compatible", "--model", "m"], "which endpoint?"),
        (["write", "--task", TASK, "--writer", "huggingface"], "which model?"),
        (["write", "--task", TASK, "--per-group", "0"], "--per-group must be at least 1, got 0"),
        (["write", "--task", TASK, "--rounds", "0"], "--rounds must be at least 1, got 0"),
    ],
)
def test_mistakes_end_in_one_line(arguments, said, capsys):
    assert main(["prompts", *arguments]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
