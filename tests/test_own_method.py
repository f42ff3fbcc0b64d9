"""The worked example of the book's page "A method of your own" does what the page says."""

import inspect
import os
import re
import shutil
import sys

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from aimfair import cli, methods, training
from aimfair.environment import AimfairError, home
from aimfair.paper import tables as paper_tables
from aimfair.study import profiles


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's own in which the registry looks for files."""
    monkeypatch.setenv("AIMFAIR_METHODS", f"{tmp_path}{os.pathsep}{tmp_path}")  # named twice, found once
    methods.registry.cache_clear()
    yield tmp_path
    methods.registry.cache_clear()
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(f"aimfair.methods.{file.stem}", None)
        vars(methods).pop(file.stem, None)


@pytest.fixture
def focal(folder):
    """The example, copied to where the registry looks."""
    shutil.copy(home() / "book" / "_examples" / "focal.py", folder)
    return methods.get("focal")


def test_a_file_is_enough_to_be_a_method_in_the_tables_and_in_its_chapter(bench, focal):
    assert list(methods.registry()).index("focal") < list(methods.registry()).index("full-finetuning")
    fitted = focal.fit(bench.seen_by(focal), focal.hyper(gamma=1.0))
    assert len(fitted.history.loss) == 1
    assert len(focal.search["gamma"]) == len(methods.LEARNING_RATES)  # the page: every method has five
    assert "focal" in paper_tables.baselines() and "focal" in {row.method for row in paper_tables.every_method()}
    assert "focal" not in paper_tables.partial()


MINE = """
from dataclasses import replace
from aimfair.methods.{module} import {method} as OTHER
METHOD = replace(OTHER, **{changes})
"""


def write_mine(folder, module="erm", method="METHOD", **changes):
    """A method made of another one, as the file ``mine.py``."""
    changes = {"name": "mine", "title": "My method"} | changes
    (folder / "mine.py").write_text(MINE.format(module=module, method=method, changes=changes))


def test_a_variant_of_a_fine_tuning_method_is_in_the_other_chapter(bench, folder):
    write_mine(folder, "aim_fair", "AIM_FAIR")
    mine = methods.get("mine")
    assert "mine" in paper_tables.partial() and "mine" not in paper_tables.baselines()
    aim = methods.get("aim-fair")
    one, other = (m.fit(bench.seen_by(m), m.hyper()).model.state_dict() for m in (mine, aim))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_files_of_a_folder_import_each_other_and_a_family_shares_a_file(folder):
    (folder / "_shared.py").write_text("NAMES = ('first', 'second')\n")
    (folder / "family.py").write_text(
        "from dataclasses import replace\n"
        "from aimfair.methods._shared import NAMES\n"
        "from aimfair.methods.erm import METHOD as ERM\n"
        "METHODS = [replace(ERM, name=name, title=name) for name in NAMES]\n"
    )
    assert {"first", "second", "erm"} <= methods.registry().keys()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ({"title": "Baseline (ERM)"}, "has the name or title of another method, erm"),
        ({"name": "erm"}, "has the name or title of another method, erm"),
        ({"title": "Mine (oracle)"}, r"the title of a method ends in \(oracle\)"),
        ({"needs": {"labels"}, "title": "Mine (oracle)"}, "declares the unknown need 'labels'"),
        ("METHODE = 3", "declares no METHOD"),
        ("METHODS = [3]", "declares no METHOD"),
        ("METHOD = ", "cannot be imported: SyntaxError"),
        ("import nowhere.to_be_found", "cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_file_at_fault_is_named_in_one_line(folder, text, fault):
    if isinstance(text, str):
        (folder / "mine.py").write_text(text)
    else:
        write_mine(folder, **text)
    with pytest.raises(AimfairError, match=f"{folder / 'mine.py'}:? {fault}") as raised:
        methods.registry()
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_not_there_and_a_file_with_the_name_of_another_are_named(folder, monkeypatch):
    (folder / "lora.py").write_text("")
    with pytest.raises(AimfairError, match=f"{folder / 'lora.py'} has the name of .*methods/lora.py: rename one"):
        methods.registry()
    monkeypatch.setenv("AIMFAIR_METHODS", f"{folder}{os.pathsep}{folder / 'missing'}")
    with pytest.raises(AimfairError, match=f"AIMFAIR_METHODS names {folder / 'missing'}, and there is no such folder"):
        methods.registry()


def test_without_focus_it_is_erm_bit_for_bit(bench, focal):
    erm = methods.get("erm")
    plain = erm.fit(bench.seen_by(erm), erm.hyper()).model.state_dict()
    other = focal.fit(bench.seen_by(focal), focal.hyper(gamma=0.0)).model.state_dict()
    assert all(torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_the_loss_is_the_focal_loss(focal, gamma):
    logits = torch.linspace(-4, 4, 18)
    target = (torch.arange(18) % 3 == 0).float()
    found = sys.modules["aimfair.methods.focal"].focal_loss(gamma)(logits, target, torch.arange(18))
    torch.testing.assert_close(found, sigmoid_focal_loss(logits, target, alpha=-1, gamma=gamma, reduction="mean"))
    p = torch.sigmoid(torch.where(target == 1, logits, -logits))  # of the true label
    torch.testing.assert_close(found, ((1 - p) ** gamma * -p.log()).mean())


def test_focus_reaches_the_training(bench, focal):
    one, other = (focal.fit(bench.seen_by(focal), focal.hyper(gamma=g)).model.conv1.weight for g in (1.0, 2.0))
    assert not torch.equal(one, other)


@pytest.fixture(scope="module")
def page():
    return (home() / "book" / "your-own-method.md").read_text()


def test_the_page_shows_the_file_and_every_need_and_every_part_of_a_method(page):
    assert "{literalinclude} _examples/focal.py" in page
    assert all(f'"{need}"' in page for need in methods.NEEDS)
    described = {"start", "needs", "defaults", "search", "fixed", "options", "beyond"}
    assert all(f"- `{name}" in page for name in described)
    assert set(methods.Method.__dataclass_fields__) == described | {"name", "title", "source", "fit"}


def test_the_pages_list_of_the_bench_is_complete(page):
    rows = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)", row)]
    assert sorted(listed) == sorted(methods.Bench.__dataclass_fields__)


def test_the_pages_hooks_are_those_of_the_training(page):
    hooks = re.findall(r"^- `(\w+)", page.partition("The hooks:\n")[2], re.MULTILINE)
    every = ["model", "train", "validation", "schedule", "seed", "device", "optimiser", "scheduler", "what", "resume"]
    assert len(hooks) == 4 and sorted(hooks + every) == sorted(inspect.signature(training.fit).parameters)


def test_the_pages_commands_exist(page):
    commands = [line.split() for line in re.search(r"```bash\n(.+?)```", page, re.DOTALL)[1].splitlines()]
    run = [words[3:] for words in commands if words[:3] == ["python", "-m", "aimfair"]]
    (test,) = (words[3:] for words in commands if words[:3] == ["python", "-m", "pytest"])
    assert len(run) == 2 and len(commands) == 3
    for words in run:
        options = cli.parser().parse_args(words)
        assert "focal" in options.names and options.profile in profiles.available()
    assert (home() / test[0]).exists() and test[1:] == ["-k", "focal"]
