"""The book's own combination, on the toy bench: what it is trained on, where tuning starts, and which of six it keeps."""

import pkgutil
from dataclasses import replace

import pytest
import torch

from aimfair import methods, training
from aimfair.environment import AimfairError, Diverged
from aimfair.gradients import gap
from aimfair.methods.finetuning import three_gradients

METHOD = methods.get("edit-add-tune")
edit_add_tune = pkgutil.resolve_name("aimfair.methods.edit_add_tune")


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def trained(bench):
    """ERM on real, edited and drawn faces together."""
    faces = bench.train.without_protected() + bench.edited(0, 0.4, 0.8) + bench.edited(1, 0.4, 0.8) + bench.balanced
    model = bench.fresh_model()
    training.fit(model, faces, bench.validation, bench.pretraining, bench.seed)
    return model


class Tuned(dict):
    """What each tuning was given, by rate; ``accuracy`` is what it then claims to reach on validation faces."""

    def __init__(self):
        super().__init__()
        self.accuracy = {}


@pytest.fixture
def tuned(monkeypatch):
    given, tune = Tuned(), edit_add_tune.tune

    def observed(bench, hyper):
        fitted = tune(bench, hyper)
        fitted.history.validation_accuracy[fitted.history.chosen] = given.accuracy.get(hyper["lr"], -1.0)
        given[hyper["lr"]] = (weights(bench.biased_model()), fitted.scores["mask"], fitted.model)
        return fitted

    monkeypatch.setattr(edit_add_tune, "tune", observed)
    return given


def test_without_gain_by_tuning_it_is_erm_on_real_edited_and_drawn_faces(bench, tuned):
    fitted = METHOD.fit(bench.seen_by(METHOD), METHOD.hyper())
    assert torch.equal(weights(fitted.model), weights(trained(bench)))
    assert fitted.scores["rate"] == 0 and fitted.scores["mask"] == []
    assert [*fitted.scores["by_rate"]] == ["0", "0.001", "0.003", "0.01", "0.03", "0.1"]


def test_a_rate_that_diverges_is_no_candidate_and_the_others_stay(bench, tuned, monkeypatch):
    def explodes(bench, hyper):
        if hyper["lr"] == 0.1:
            raise Diverged("not finite")
        return observed(bench, hyper)

    observed = edit_add_tune.tune
    monkeypatch.setattr(edit_add_tune, "tune", explodes)
    tuned.accuracy = {0.003: 101.0}
    fitted = METHOD.fit(bench.seen_by(METHOD), METHOD.hyper())
    assert fitted.scores["rate"] == 0.003 and [*fitted.scores["by_rate"]] == ["0", "0.001", "0.003", "0.01", "0.03"]


def test_every_tuning_starts_from_that_model_and_the_best_by_validation_is_kept(bench, tuned):
    tuned.accuracy = {0.003: 101.0, 0.01: 102.0, 0.03: 102.0}
    fitted = METHOD.fit(bench.seen_by(METHOD), METHOD.hyper())
    start = weights(trained(bench))
    assert [*tuned] == list(methods.LEARNING_RATES)
    assert all(torch.equal(began, start) and mask == fitted.scores["mask"] for began, mask, _ in tuned.values())
    assert fitted.model is tuned[0.01][2] and fitted.scores["rate"] == 0.01  # the smaller of two that are equal
    assert fitted.scores["by_rate"]["0.03"] == 102.0 and not torch.equal(weights(fitted.model), start)


def test_the_mask_is_that_of_the_cosine_gaps_of_the_trained_model(bench, tuned):
    tuned.accuracy = {0.1: 101.0}
    fitted = METHOD.fit(bench.seen_by(METHOD), METHOD.hyper())
    model = trained(bench)
    real, biased, balanced = three_gradients(replace(bench, biased_model=lambda: model), "train")
    gaps = gap(real, biased, "cosine"), gap(biased, balanced, "cosine")
    cosine = methods.get("aim-fair-cosine")
    usual = cosine.fit(replace(bench, gaps=lambda *asked: {("cosine", "train"): gaps}[asked]), cosine.hyper())
    assert fitted.scores["mask"] == usual.scores["mask"]


def test_a_bench_without_an_editor_is_refused_before_anything_is_trained(bench):
    with pytest.raises(AimfairError, match="no edited faces"):
        METHOD.fit(replace(bench, edited=None, fresh_model=None), METHOD.hyper())
