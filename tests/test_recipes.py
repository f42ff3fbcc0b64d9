"""A recipe is a name for ordinary runs: those that the tables have."""

import pytest

from aimfair import cli, methods, study
from aimfair.environment import AimfairError
from aimfair.study import recipes, search
from beyond import experiments


@pytest.fixture
def asked(monkeypatch):
    """What ``aimfair run --search`` wants to run: (profile, method, given) of each name."""
    found = []
    monkeypatch.setattr(
        search, "wanted", lambda lab, name, seed, **given: found.append((lab.profile, name, given)) or []
    )
    return found


def test_a_recipe_has_a_name_of_its_own_and_settings_that_its_method_knows():
    assert not set(recipes.ALL) & set(methods.registry()) and "all" not in recipes.ALL
    for recipe in recipes.ALL.values():
        assert methods.get(recipe.method).hyper(**recipe.fixed)


@pytest.mark.parametrize("profile", ["demo", "celeba-smiling-male", "utkface"])
def test_the_own_method_is_the_row_of_longer_training_that_has_its_title(profile):
    lab = study.open_study(profile)
    (row,) = [row for row in experiments.all_of(lab.profile)["longer"].rows if row.title == recipes.OWN.title]
    varied, method, fixed = recipes.resolve(recipes.OWN.name, lab)
    assert (method, fixed) == (row.method, row.fixed) and varied.profile == lab.varied(**row.changes).profile
    assert varied.profile.pretrain_epochs == 3 * lab.profile.pretrain_epochs


def test_it_is_run_by_its_name_beside_methods(asked, capsys):
    assert cli.main(["run", "erm", recipes.OWN.name, "--search", "--profile", "smoke"]) == 0
    (plain, *erm), (longer, *own) = asked
    assert erm == ["erm", {}] and own == ["aim-fair", {"batchnorm": "eval"}]
    assert (
        longer.pretrain_epochs == 3 * plain.pretrain_epochs and longer.pretrain_decay_at == 3 * plain.pretrain_decay_at
    )


def test_what_is_said_on_the_command_line_counts(asked):
    options = ["--hyper", "batchnorm=train", "k=40", "-p", "pretrain_epochs=2", "-p", "pretrain_decay_at=1"]
    assert cli.main(["run", recipes.OWN.name, "--search", "--profile", "smoke", *options]) == 0
    ((profile, _, given),) = asked
    assert given == {"batchnorm": "train", "k": 40}
    assert (profile.pretrain_epochs, profile.pretrain_decay_at) == (6, 3)


def test_a_name_that_is_neither_is_told_with_all_that_there_are():
    with pytest.raises(AimfairError, match=rf"no method 'patient'; there are: .*\berm, .*{recipes.OWN.name}"):
        recipes.resolve("patient", study.open_study("smoke"))
