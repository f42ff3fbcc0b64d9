"""The worked example of the book's page "A method of your own" does what the page says."""

import inspect
import re
import shutil
import sys

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from aimfair import cli, methods, training
from aimfair.environment import AimfairError, home
from aimfair.study import profiles
from aimfair.study.grid import paper_tables


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A second folder in which the registry looks for files."""
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
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


def copied(name, folder, *changes):
    """The file of a method, copied under the name ``mine`` with some of its text changed."""
    text = (home() / "aimfair" / "methods" / f"{name}.py").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.py").write_text(text)


def test_a_file_is_enough_to_be_a_method(bench, focal):
    assert list(methods.registry()).index("focal") < list(methods.registry()).index("full-finetuning")
    fitted = focal.fit(bench.seen_by(focal), focal.hyper(gamma=1.0))
    assert len(fitted.history.loss) == 1
    assert len(focal.search["gamma"]) == len(methods.LEARNING_RATES)  # the page: every method has five


def test_it_is_in_the_tables_and_in_its_chapter_by_itself(focal):
    assert "focal" in paper_tables.baselines() and "focal" in {row.method for row in paper_tables.every_method()}
    assert "focal" not in paper_tables.partial()


def test_a_copy_of_a_fine_tuning_method_is_in_the_other_chapter(bench, folder):
    copied("full_finetuning", folder, ('name="full-finetuning"', 'name="mine"'), ('title="Full', 'title="My full'))
    mine = methods.get("mine")
    assert "mine" in paper_tables.partial() and "mine" not in paper_tables.baselines()
    full = methods.get("full-finetuning")
    one, other = (m.fit(bench.seen_by(m), m.hyper()).model.state_dict() for m in (mine, full))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("erm", [], r"methods/mine.py has the name or title of another method, erm"),
        ("erm", [('name="erm"', 'name="mine"')], r"methods/mine.py has the name or title of another method, erm"),
        ("erm", [("METHOD =", "METHODE =")], r"methods/mine.py declares no METHOD"),
        (
            "group_dro",
            [('name="group-dro"', 'name="mine"'), ("(oracle)", "")],
            r"mine.py: the title .* ends in \(oracle\)",
        ),
        (
            "erm",
            [('name="erm"', 'name="mine", needs=frozenset({"labels"})'), ("Baseline", "My")],
            "unknown need 'labels'",
        ),
    ],
)
def test_a_copy_that_is_not_finished_is_answered_with_its_file(folder, name, changes, said):
    copied(name, folder, *changes)
    with pytest.raises(AimfairError, match=said):
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
    described = {"start", "needs", "defaults", "search", "options", "beyond"}
    assert all(f"- `{name}" in page for name in described)
    assert set(methods.Method.__dataclass_fields__) == described | {"name", "title", "source", "fit"}


def test_the_pages_list_of_the_bench_is_complete(page):
    rows = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)", row)]
    assert sorted(listed) == sorted(methods.Bench.__dataclass_fields__)


def test_the_pages_hooks_are_those_of_the_training(page):
    hooks = re.findall(r"^- `(\w+)", page.partition("The hooks:\n")[2], re.MULTILINE)
    every = ["model", "train", "validation", "schedule", "seed", "device", "what", "resume"]
    assert len(hooks) == 5 and sorted(hooks + every) == sorted(inspect.signature(training.fit).parameters)


def test_the_pages_commands_exist(page):
    commands = [line.split() for line in re.search(r"```bash\n(.+?)```", page, re.DOTALL)[1].splitlines()]
    run = [words[3:] for words in commands if words[:3] == ["python", "-m", "aimfair"]]
    (test,) = (words[3:] for words in commands if words[:3] == ["python", "-m", "pytest"])
    assert len(run) == 2 and len(commands) == 3
    for words in run:
        options = cli.parser().parse_args(words)
        assert "focal" in options.names and options.profile in profiles.available()
    assert (home() / test[0]).exists() and test[1:] == ["-k", "focal"]
