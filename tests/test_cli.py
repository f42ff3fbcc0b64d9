"""The command line: it teaches, it refuses in one line, it passes on what it was told."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from nbformat.v4 import new_code_cell
from small_book import chapter, write

from aimfair import cli, methods, prompts, study
from aimfair.datasets import faceworld
from aimfair.environment import home
from aimfair.study import profiles

COMMON = ["--profile", "smoke", "--device", "cpu"]
FEW = {
    "train_images": 60,
    "validation_images": 40,
    "images_per_group": 16,
    "batch_size": 16,
    "image_size": 32,
    "steps": 1,
}


def pairs(**changes):
    return [part for name, value in changes.items() for part in ("-p", f"{name}={value}")]


def test_help_lists_every_command_and_does_not_wait_for_torch():
    probe = "import sys\nfrom aimfair.cli import main\nmain(sys.argv[1:])\nsys.exit('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert shown.returncode == 0
    assert all(f"\n    {name.split()[0]} " in shown.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([*command.split(), "--help"])
    assert left.value.code == 0
    assert f"\n$ aimfair {command}" in capsys.readouterr().out


def test_what_the_user_can_mend_is_one_line_and_status_2(capsys):
    for arguments, says in (
        (["book", "--profile", "domo"], "no profile 'domo'; there are: "),
        (["book", "--data", "no/such/folder"], "--data no/such/folder: there is no such file or folder"),
        (["run", "no-such-method"], "no method 'no-such-method'; there are: "),
        (["run", "erm", "--seeds", "one"], "--seeds takes whole numbers or the word all, got one"),
        (["run", "erm", "--hyper", "rate=1"], "erm has no hyper-parameter 'rate'"),
        (["run", "erm", "--seed", "-3"], "--seed -3: a seed is a whole number, 0 or more"),
        (["run", "erm", "-p", "seed=one"], "--seed one: a seed is a whole number, 0 or more"),
        (["run", "erm", "-p", "train_images"], "'train_images' is not of the form name=value"),
        (["publish", "-p", "profile=utkface"], "-p profile=utkface: a profile is named by --profile"),
        (["run", "erm", "-p", "reuse=false"], "-p reuse=False: published runs are left out by --no-reuse"),
        (["run", "erm", "--profile", "smoke", "-p", "target=Male"], "protected must be another attribute than target"),
        (["measure", "gradient-gaps", "erm"], "measurement gradient-gaps: got an unexpected keyword argument 'of'"),
        (["measure", "feature-map"], "measurement feature-map: missing a required argument: 'of'"),
        (["run", "erm", "-p", "train_images=many"], "-p train_images=many: train_images must be a number, got 'many'"),
        (["run", "erm", "-p", "seeds=yes"], "-p seeds=yes: seeds must be a number, got 'yes'"),
        (["generate", "-p", "pretrain_lr=1e999"], "-p pretrain_lr=1e999: pretrain_lr must be text or a finite"),
        (["generate", "--draw", "-1"], "--draw -1: draw must be greater than or equal to 0"),
        (["grid", "status", "-p", "steps=12:30"], "-p steps=12:30: steps must be a number, got '12:30'"),
        (["book", "-p", "train_images=2.5"], "train_images must be"),
        (["run", "erm", "-p", "train_image=3"], "-p train_image=3: unknown key 'train_image'"),
        (["run", "erm", "--no-reuse", "--runs", "/proc/none"], "cannot write to /proc/none"),
        (["run", "erm", "--device", "tpu"], "device"),
        (["train-sd", "--out", "data/prompts"], "data/prompts exists: name another folder with --out"),
    ):
        assert cli.main(arguments) == 2, arguments
        said = capsys.readouterr().err
        assert says in said and said.startswith("aimfair: ") and said.count("\n") == 1, said


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("lr=much", "aim-fair: lr must be a number, got 'much'"),
        ("score=3", "aim-fair: score must be text, such as absolute, got 3"),
        ("rate=1", "aim-fair has no hyper-parameter 'rate'"),
    ],
)
def test_an_impossible_hyper_parameter_is_refused_before_anything_is_drawn_or_trained(
    given, says, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(study.Study, "bench", lambda *_, **__: pytest.fail("it was run"))
    assert cli.main(["run", "aim-fair", "--profile", "smoke", "--runs", str(tmp_path), "--hyper", given]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("seen", [0, 1], ids=["nothing", "a letter"])
def test_a_reader_that_has_seen_enough_is_no_error(seen):
    command = [sys.executable, "-m", "aimfair", "prompts", "show", "celeba/Smiling_Male"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shown:
        assert len(shown.stdout.read(seen)) == seen
        shown.stdout.close()
        assert shown.stderr.read() == ""


def test_every_method_runs_on_the_smoke_profile_by_one_command(tmp_path, capsys, monkeypatch):
    (tmp_path / "data").mkdir()
    for part in ("notebooks", "data/prompts", "data/tiny-sd", "data/paper"):
        (tmp_path / part).symlink_to(home() / part)
    monkeypatch.setenv("AIMFAIR_HOME", str(tmp_path))  # so that its synthetic faces do not stay in the checkout
    monkeypatch.setattr(faceworld, "catalogue", partial(faceworld.catalogue, test=400))
    assert cli.main(["run", "--methods", "all", *COMMON, "--runs", str(tmp_path), "--no-reuse", *pairs(**FEW)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(methods.registry())
    assert all(0 <= float(line.split()[2]) <= 100 for line in lines)


def test_a_method_that_fails_does_not_stop_the_others(tmp_path, capsys):
    common = [*COMMON, "--runs", str(tmp_path), "--no-reuse", *pairs(**FEW)]
    assert cli.main(["run", "erm", "cvar-dro", *common, "--hyper", "alpha=0.5"]) == 1
    said = capsys.readouterr()
    told = said.err.split("\r")[-1]  # after the bar
    assert told.startswith("failed: erm: erm has no hyper-parameter 'alpha'") and told.count("\n") == 1
    assert [line.split()[0] for line in said.out.splitlines()[1:]] == ["cvar-dro"]


def test_what_a_method_noted_is_kept_with_its_run_and_told(tmp_path, capsys):
    none_of_the_rare = pairs(**FEW | {"train_images": 40, "minority": 0.001})
    command = ["run", "group-dro", *COMMON, "--runs", str(tmp_path), *none_of_the_rare]
    for _ in ("trained", "found again"):
        assert cli.main(command) == 0
        line = capsys.readouterr().out.splitlines()[1]
        assert "note: a group has no training face" in line


def test_a_terminal_that_cannot_show_a_character_shows_another():
    table = "from aimfair import cli\ncli.COMMANDS['lab'][0].__globals__['become'] = lambda *_: print('\u2265 5 ± 1')\ncli.main(['lab'])"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    shown = subprocess.run([sys.executable, "-c", table], capture_output=True, text=True, env=environment)
    assert (shown.returncode, shown.stdout) == (0, "? 5 ? 1\n")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_place_that_cannot_be_written_is_named_in_one_line(number, monkeypatch, capsys):
    def refuse(_):
        raise OSError(number, os.strerror(number), "some/where")

    monkeypatch.setattr(cli, "read_bank", refuse)
    assert cli.main(["prompts", "check", "x"]) == 2
    assert capsys.readouterr().err == f"aimfair: some/where: {os.strerror(number)}\n"


def test_an_unknown_command_or_option_is_refused():
    for arguments in (["bok"], ["book", "--profil", "demo", "--colour"]):
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        assert left.value.code == 2


def test_values_are_numbers_truths_or_text():
    given = ["lr=0.01", "small=1e-3", "n=40", "reuse=false", "prompts=no-pose", "model=", "name=esel"]
    assert list(cli.parse_pairs(given).values()) == [0.01, 0.001, 40, False, "no-pose", "", "esel"]


def test_common_options_become_parameters(tmp_path):
    given = ["--data", str(tmp_path), "--seed", "7", "--device", "cpu", "-p", "train_images=80"]
    found = cli.read_parameters(cli.parser().parse_args(["book", *given]))
    assert found == {"data_root": str(tmp_path), "seed": 7, "device": "cpu", "train_images": 80}


def test_status_tells_the_state_of_every_profile(capsys):
    assert cli.main(["status"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said for name in profiles.available()) and "runs of this machine" in said


def test_tests_are_run_in_the_checkout_whatever_the_folder(tmp_path):
    command = [sys.executable, "-m", "aimfair", "test", "-n", "0", "-k", "good_page", "-q", "tests/test_pages.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_a_command_as_ctrl_c_does(name, monkeypatch, capsys):
    number = getattr(signal, name)
    inherited = signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)  # no nohup
    monkeypatch.setattr(cli, "read_bank", lambda _: [os.kill(os.getpid(), number), *map(time.sleep, [0.1] * 100)])
    assert cli.main(["prompts", "check", "x"]) == 128 + number
    assert capsys.readouterr().err.strip().startswith("Stopped.")
    signal.signal(number, inherited)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with cli.stopping():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def test_a_stopped_book_ends_in_one_line_and_leaves_no_kernel(tmp_path):
    notebook = chapter(
        new_code_cell(
            f"import os, pathlib, time\npathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))\ntime.sleep(120)"
        )
    )
    write(notebook, tmp_path / "notebooks" / "01_a.ipynb")
    (tmp_path / "notebooks" / "profiles").symlink_to(home() / "notebooks" / "profiles")
    running = subprocess.Popen(
        [sys.executable, "-m", "aimfair", "book", "--profile", "smoke"],
        env=os.environ | {"AIMFAIR_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()) and running.poll() is None:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 128 + signal.SIGTERM
    assert said.strip() == "Stopped. What was finished is kept: the same command goes on from there."
    for _ in range(100):  # the kernel is given the time to go
        if not alive(int(pid.read_text())):
            break
        time.sleep(0.2)
    assert not alive(int(pid.read_text()))
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == ["01_a.log"]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_character_that_a_terminal_or_pipe_cannot_show_ends_no_command(encoding, tmp_path, monkeypatch):
    text = prompts.path_of("faceworld/Smiling_Male").read_text(encoding="utf-8").replace("photo", "phōto")
    (tmp_path / "bank.json").write_text(text, encoding="utf-8")
    shown = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in shown.items():
        monkeypatch.setattr(sys, name, stream)
    assert cli.main(["prompts", "show", str(tmp_path / "bank.json")]) == 0
    assert cli.main(["run", "mēthod"]) == 2
    for name, word in (("stdout", b"face ph?to of"), ("stderr", b"'m?thod'")):
        shown[name].flush()
        assert word in shown[name].buffer.getvalue()
