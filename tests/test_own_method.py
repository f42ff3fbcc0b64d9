"""The worked example of the book's page "A method of your own" does what the page says."""

import shutil
import sys

import pytest
import torch

from aimfair import methods
from aimfair.paths import home


@pytest.fixture
def focal(tmp_path, monkeypatch):
    """The example, copied to where the registry looks."""
    shutil.copy(home() / "book" / "_examples" / "focal.py", tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    methods.registry.cache_clear()
    yield methods.get("focal")
    methods.registry.cache_clear()
    sys.modules.pop("aimfair.methods.focal", None)


def test_a_file_is_enough_to_be_a_method(bench, focal):
    assert list(methods.registry()).index("focal") < list(methods.registry()).index("full-finetuning")
    fitted = focal.fit(bench.seen_by(focal), focal.hyper(gamma=1.0))
    assert len(fitted.history.loss) == 1
    assert len(focal.search["gamma"]) == len(methods.LEARNING_RATES)  # the page: every method has five


def test_without_focus_it_is_erm_bit_for_bit(bench, focal):
    erm = methods.get("erm")
    plain = erm.fit(bench.seen_by(erm), erm.hyper()).model.state_dict()
    other = focal.fit(bench.seen_by(focal), focal.hyper(gamma=0.0)).model.state_dict()
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_the_page_shows_the_file_and_names_real_parts_of_the_bench():
    page = (home() / "book" / "your-own-method.md").read_text()
    assert "{literalinclude} _examples/focal.py" in page
    for name in ("train", "validation", "balanced", "biased", "pretraining", "finetuning", "resume"):
        assert f"`{name}`" in page and name in methods.Bench.__dataclass_fields__
    assert all(f'"{need}"' in page for need in methods.NEEDS)
