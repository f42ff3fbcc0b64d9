"""One figure, two forms: a picture where output is stored, controls that draw it again where a kernel is."""

import base64

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from aimfair.analysis.interactive import Explorer
from aimfair.environment import AimfairError

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def drawn():
    return []


@pytest.fixture
def explorer(drawn):
    def draw(k, group):
        drawn.append((k, group))
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.plot([0, k])
        plt.close(figure)
        return figure

    return Explorer(draw, {"k": [40, 50, 60], "group": ["all", "rare"]}, k=50)


def test_where_output_is_stored_there_is_the_picture_of_the_start_values_and_no_widget(explorer, drawn, monkeypatch):
    monkeypatch.setenv("AIMFAIR_PROGRESS", "off")
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG" and WIDGET not in bundle
    assert bundle["text/plain"] == "<Figure: k=50, group=all>" and drawn == [(50, "all")]


def test_live_both_forms_are_in_one_output(explorer, monkeypatch):
    monkeypatch.setenv("AIMFAIR_PROGRESS", "on")
    bundle = explorer._repr_mimebundle_()
    assert {"image/png", WIDGET} <= bundle.keys() and bundle["text/plain"] == "<Figure: k=50, group=all>"


def test_a_control_draws_the_figure_again(explorer, drawn):
    box = explorer.widget()
    slider, choice = box.children[0].children
    assert isinstance(slider, ipywidgets.SelectionSlider) and isinstance(choice, ipywidgets.Dropdown)
    slider.value = 60
    choice.value = "rare"
    assert drawn == [(50, "all"), (60, "all"), (60, "rare")]


def test_a_start_value_must_be_a_choice(explorer):
    with pytest.raises(AimfairError, match=r"no such choice for k: choose among \[1, 2\]"):
        Explorer(explorer.draw, {"k": [1, 2]}, k=3)
    with pytest.raises(AimfairError, match="no such choice for seed"):
        Explorer(explorer.draw, {"k": [1, 2]}, seed=3)
