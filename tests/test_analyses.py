"""The analyses of single chapters, in notebooks/beyond: against counting by hand, closed forms and simulated chance."""

import base64
from itertools import combinations

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import brier_score_loss
from torch import nn

from aimfair import datasets, masks, study
from aimfair.environment import AimfairError
from aimfair.metrics import fairness_report
from aimfair.models import as_input
from aimfair.study.runs import Run
from beyond import calibration, intersections, interventions, stability, thresholds
from beyond.interactive import Explorer
from beyond.intersections import intersections as cross

# ----------------------------------------------------------------------------------------- thresholds


def run_of(seed=0, n=400, shift=1.0):
    """Logits that are shifted up for protected value 1: one threshold cannot serve both."""
    rng = np.random.default_rng(seed)
    tables = []
    for split, size in (("test", n), ("validation", n // 2)):
        y, s = rng.integers(0, 2, (2, size))
        logit = 2 * (2 * y - 1) + shift * (2 * s - 1) + rng.normal(0, 1.5, size)
        tables.append(pd.DataFrame({"split": split, "name": range(size), "target": y, "protected": s, "logit": logit}))
    return Run({"method": "erm", "seed": seed, "hyper": {}}, {}, pd.concat(tables, ignore_index=True))


def test_cells_at_a_threshold_are_those_of_the_decisions():
    run = run_of()
    faces = thresholds.scored(run, "test")
    at = float(faces.logit[3])  # a face on the threshold is called 1
    table = thresholds.curves([run, run_of(1)], [-1.3, 0.0, 0.7, at])
    assert len(table) == 8 and set(table["seed"]) == {0, 1} and set(table["method"]) == {"Baseline (ERM)"}
    for row in table[table["seed"] == 0].itertuples():
        expected = fairness_report(faces.target, faces.logit >= row.threshold, faces.protected)
        assert faces.cells(row.threshold)[0] == pytest.approx(expected.cells)
        assert (row.acc, row.wst, row.eo_max) == pytest.approx((expected.acc, expected.wst, expected.eo_max))
    with pytest.raises(AimfairError, match="no run"):
        thresholds.curves([], [0.0])
    with pytest.raises(AimfairError, match="no predictions of home"):
        thresholds.scored(run, "home")


def test_candidates_decide_differently_and_are_all_there_is():
    logits = np.array([0.3, -1.0, 0.3, 2.0])
    cuts = thresholds.candidates(logits)
    assert cuts.tolist() == [-2.0, -0.35, 0.0, 1.15, 3.0]
    decisions = {tuple(logits >= cut) for cut in np.linspace(-3, 4, 1001)}
    assert decisions == {tuple(logits >= cut) for cut in cuts}
    assert thresholds.best(np.array([1, 5, 5, 5, 2]), np.array([-3.0, -2.0, 0.5, 1.0, 2.0])) == 0.5  # nearest to 0


def test_each_rule_is_the_best_of_its_kind_where_it_chooses():
    run = run_of(3)
    best = thresholds.moved([run], chosen_on="test").set_index("rule")
    faces = thresholds.scored(run, "test")
    every = thresholds.curves([run], thresholds.candidates(faces.logit))
    trained, one, fair, per = thresholds.RULES
    assert best.loc[trained, "wst"] == run.report().wst
    assert best.loc[one, "acc"] == pytest.approx(every["acc"].max())
    assert best.loc[fair, "wst"] == pytest.approx(every["wst"].max())
    grid = thresholds.candidates(faces.logit)[::8]
    assert best.loc[per, "wst"] >= max(faces.report((a, b)).wst for a in grid for b in grid) - 1e-9
    assert best.loc[per, "wst"] > best.loc[fair, "wst"] > best.loc[trained, "wst"] - 1e-9
    assert (best["cut 0"] == best["cut 1"]).tolist() == [True, True, True, False]


def test_the_accuracy_rule_reads_no_protected_label():
    run = run_of(5)
    swapped = run.predictions.assign(protected=np.random.default_rng(0).integers(0, 2, len(run.predictions)))
    cuts = [thresholds.by_accuracy(thresholds.scored(Run({}, {}, p), "validation")) for p in (run.predictions, swapped)]
    assert cuts[0] == cuts[1]


# ---------------------------------------------------------------------------------------- calibration


def test_scores_of_a_group_are_those_of_its_faces():
    rng = np.random.default_rng(4)
    target, protected = rng.integers(0, 2, (2, 500))
    logits = np.round(rng.normal(0, 1, 500) + target * (1 + protected), 1)  # rounding makes ties
    scores = calibration.group_scores(torch.as_tensor(target), logits, protected.tolist())
    for s in (0, 1):
        y, z = target[protected == s], logits[protected == s]
        assert scores.brier[s] == pytest.approx(brier_score_loss(y, 1 / (1 + np.exp(-z))))
        pairs = np.subtract.outer(z[y == 1], z[y == 0])
        assert scores.auroc[s] == pytest.approx(np.mean((pairs > 0) + (pairs == 0) / 2))
    empty = calibration.group_scores([0, 1], [-1.0, 2.0], [0, 0])
    assert empty.loc[1].isna().all() and empty.auroc[0] == 1
    assert np.isnan(calibration.group_scores([1, 1], [0.0, 1.0], [0, 0]).auroc[0])
    with pytest.raises(AimfairError, match="every face needs"):
        calibration.group_scores([0, 1], [1.0], [0, 0])


def test_calibration_error_of_known_scores():
    target = np.repeat((0, 1, 0, 1), (360, 40, 40, 360))
    assert calibration.ece(target, np.repeat((0.1, 0.9), 400), bins=2) == pytest.approx(0)
    assert calibration.ece(target, np.repeat((0.05, 0.95), 400), bins=2) == pytest.approx(0.05)
    rng = np.random.default_rng(0)
    p = rng.random(60_000)
    assert calibration.ece((rng.random(60_000) < p).astype(float), p) < 0.01
    order, score = rng.permutation(15), np.linspace(0.1, 0.9, 15)  # a bin for each score
    assert calibration.ece(target[:15][order], score[order]) == pytest.approx(np.abs(score - target[:15]).mean())


def test_calibration_is_compared_on_groups_of_equal_size():
    protected = np.repeat([0, 1], [300, 80])
    chosen = calibration.equal_sizes(protected, seed=1)
    assert np.bincount(protected[chosen]).tolist() == [80, 80] and (np.diff(chosen) > 0).all()
    row = calibration.frame([run_of(4)]).iloc[0]
    faces = run_of(4).predictions.query("split == 'test'")
    faces = faces.iloc[calibration.equal_sizes(faces["protected"])]
    direct = calibration.group_scores(faces["target"], faces["logit"], faces["protected"])
    assert (row["ece 0"], row["auroc 1"]) == pytest.approx((100 * direct.ece[0], 100 * direct.auroc[1]))
    assert row["brier gap"] == pytest.approx(abs(row["brier 0"] - row["brier 1"])) and row["seed"] == 4


# -------------------------------------------------------------------------------------- intersections


def population(n=1600, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((3, n)) < 0.5).astype(int)


def test_cells_are_counted_by_hand():
    y, s, z = population()
    right = np.random.default_rng(1).random(1600) < 0.8
    table = cross(y, right, s, z, draws=10).table
    for row in table.itertuples():
        inside = (y == row.target) & (s == row.protected) & (z == row.second)
        assert row.faces == inside.sum() and row.accuracy == pytest.approx(100 * right[inside].mean())
        assert row.low < row.accuracy < row.high
    assert table["faces"].sum() == 1600


def test_a_hidden_gap_is_found_although_the_four_groups_are_even():
    y, s, z = population()
    right = np.where((y == 1) & (s == 0), np.where(z == 1, 0.5, 1.0), 0.8)
    found = cross(y, np.random.default_rng(2).random((5, 1600)) < right, s, z, draws=500)
    assert found.gap == pytest.approx(50, abs=6) and found.as_dict()["gap p"] == pytest.approx(1 / 501)
    worst = found.table.loc[found.table["accuracy"].idxmin()]
    assert tuple(worst[["target", "protected", "second"]]) == (1, 0, 1)
    assert found.worst == worst["accuracy"] and found.as_dict()["worst p"] == pytest.approx(1 / 501)


def test_p_values_are_uniform_where_the_second_attribute_means_nothing():
    p = []
    for seed in range(60):
        y, s, z = population(400, seed)
        right = np.random.default_rng(1000 + seed).random((3, 400)) < 0.8
        p.append(cross(y, right, s, z, draws=99, seed=seed).as_dict()["gap p"])
    assert 0.35 < np.mean(p) < 0.65 and np.mean(np.array(p) <= 0.1) < 0.25


def test_small_cells_are_shown_with_their_count_and_take_no_part():
    y, s, z = population()
    tiny = (y == 0) & (s == 0) & (z == 1)
    keep = ~tiny | (np.cumsum(tiny) <= 5)
    right = np.where(tiny, 0.0, 1.0)
    found = cross(y[keep], right[keep], s[keep], z[keep], draws=50)
    row = found.table.set_index(["target", "protected", "second"]).loc[(0, 0, 1)]
    assert row["faces"] == 5 and row["accuracy"] == 0 and not row["counted"]
    assert found.gap == 0 and found.worst == 100 and found.as_dict()["gap p"] == 1
    empty = cross(y[~tiny], right[~tiny], s[~tiny], z[~tiny], draws=5).table
    assert np.isnan(empty["accuracy"]).sum() == 1 and empty["faces"].min() == 0
    for arguments, message in (
        ((y[:60], right[:60], s[:60], z[:60]), "no group has 30 faces"),
        ((y, right[1:], s, z), "three labels and a result"),
        ((y, right, s, z + 1), "0 and 1 only"),
    ):
        with pytest.raises(AimfairError, match=message):
            cross(*arguments)


def test_runs_are_crossed_seed_by_seed_with_an_attribute_that_the_catalogue_knows_by_name():
    world = datasets.load("faceworld", train=0, validation=0, test=600, corpus=0)
    shuffled = np.random.default_rng(0).permutation(600)
    young = intersections.second_attribute(world, world.names[shuffled], "Young")
    assert (young == world.labels("Young")[shuffled]).all()
    assert intersections.second_attribute(world, world.names, "yaw").mean() == pytest.approx(0.5, abs=0.01)
    for attribute, message in (("split", "holds text"), ("Old", "no attribute 'Old'")):
        with pytest.raises(AimfairError, match=message):
            intersections.second_attribute(world, world.names, attribute)

    y, s, rng = world.labels("Smiling"), world.labels("Male"), np.random.default_rng(0)
    faces = pd.DataFrame({"split": "test", "name": world.names, "target": y, "protected": s})
    runs = [Run({"method": "erm"}, {}, faces.assign(logit=4 * y - 2 + rng.normal(0, 2, 600))) for _ in (1, 2)]
    found = intersections.of_runs(runs, world, "Young", draws=50)
    correct = np.stack([(r.predictions["logit"] >= 0) == (y == 1) for r in runs])
    assert found.gap == cross(y, correct, s, world.labels("Young"), draws=50).gap
    other = Run(runs[1].config, {}, runs[1].predictions.iloc[::-1])
    for several, message in (([runs[0], other], "same test faces"), ([], "no run")):
        with pytest.raises(AimfairError, match=message):
            intersections.of_runs(several, world, "Young")


# -------------------------------------------------------------------------------------- interventions


class Brightness(nn.Module):
    """Calls a face 1 if it is bright in one place: a model that can be computed by hand."""

    def forward(self, x):
        return x[:, :, 20, 16].mean(1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    changes = {"train_images": 80, "validation_images": 40, "image_size": 32}
    opened = study.open_study("smoke", changes=changes, device="cpu", runs_root=str(tmp_path_factory.mktemp("runs")))
    opened.split["test"] = opened.split["test"][:150]
    return opened


def test_setting_a_label_to_what_it_is_changes_nothing(lab):
    first, second = interventions.redrawn(lab, Brightness(), "Male")
    as_drawn = Brightness()(as_input(lab.faces("test").images)).numpy()
    is_male = lab.faces("test").protected.numpy() == 1
    assert np.array_equal(np.where(is_male, second, first), as_drawn)
    assert (np.where(is_male, first, second) != as_drawn).mean() > 0.5
    table = interventions.effects(lab, Brightness())
    assert list(table.index) == ["Smiling", "Male"]
    assert table.loc["Male", "mean change of the logit"] == pytest.approx((second - first).mean())
    changed = 100 * ((second >= 0) != (first >= 0)).mean()
    assert table.loc["Male", "predictions changed (%)"] == pytest.approx(changed)
    photographs = study.open_study("utkface", device="cpu")
    assert not interventions.possible(photographs)
    with pytest.raises(AimfairError, match="photographs"):
        interventions.redrawn(photographs, Brightness(), "White")


def test_the_swayed_are_of_their_group_and_lose_most_first(lab):
    found = interventions.swayed(lab, Brightness(), n=5)
    first, second = interventions.redrawn(lab, Brightness(), "Male")
    at = [lab.split["test"].tolist().index(i) for i in found]
    assert len(at) > 1 and (lab.faces("test").groups.numpy()[at] == 3).all()
    assert (first[at] >= 0).all() and (second[at] < 0).all() and (np.diff((second - first)[at]) >= 0).all()
    men, women = (interventions.pictures(lab, found, value) for value in (1, 0))
    assert torch.equal(men, lab.faces("test").images[at]) and not torch.equal(men, women)


# ------------------------------------------------------------------------------- a figure with controls


def test_an_explorer_is_a_picture_where_output_is_stored_and_draws_again_where_a_kernel_runs(monkeypatch):
    widget, drawn = "application/vnd.jupyter.widget-view+json", []

    def draw(k, group):
        drawn.append((k, group))
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.plot([0, k])
        plt.close(figure)
        return figure

    explorer = Explorer(draw, {"k": [40, 50, 60], "group": ["all", "rare"]}, k=50)
    monkeypatch.setenv("AIMFAIR_PROGRESS", "off")
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG" and widget not in bundle
    assert bundle["text/plain"] == "<Figure: k=50, group=all>" and drawn == [(50, "all")]
    monkeypatch.setenv("AIMFAIR_PROGRESS", "on")
    live = explorer._repr_mimebundle_()
    assert live["text/plain"] == bundle["text/plain"] and {"image/png", widget} <= live.keys()
    drawn.clear()
    slider, choice = explorer.widget().children[0].children
    assert isinstance(slider, ipywidgets.SelectionSlider) and isinstance(choice, ipywidgets.Dropdown)
    slider.value = 60
    choice.value = "rare"
    assert drawn == [(50, "all"), (60, "all"), (60, "rare")]
    for start, message in (({"k": 3}, r"no such choice for k: choose among \[40, 50, 60\]"), ({"seed": 3}, "for seed")):
        with pytest.raises(AimfairError, match=message):
            Explorer(draw, explorer.choices, **start)


# ------------------------------------------------------------------------------------ how sure is a mask

NAMES = [f"t{i:02d}" for i in range(12)]


def test_expected_overlap_is_the_mean_over_all_masks_and_over_intersections_of_random_rankings():
    fixed = set(NAMES[:5])
    every = [masks.jaccard(fixed, set(other)) for other in combinations(NAMES, 7)]
    assert stability.expected_jaccard(5, 7, 12) == pytest.approx(np.mean(every))
    assert stability.expected_jaccard(12, 12, 12) == 1
    with pytest.raises(AimfairError, match="sizes lie between"):
        stability.expected_jaccard(0, 3, 12)
    rng, drawn = np.random.default_rng(0), []
    while len(drawn) < 300:
        mask = masks.select(*(dict(zip(NAMES, rng.random(12), strict=True)) for _ in range(2)), k=9)
        drawn += [mask] if len(mask) == 7 else []
    pairs = [masks.jaccard(a, b) for a, b in combinations(drawn, 2)]
    assert np.mean(pairs) == pytest.approx(stability.expected_jaccard(7, 7, 12), abs=0.01)


def test_equal_masks_overlap_more_than_chance_and_random_ones_do_not():
    same = stability.overlap([set(NAMES[:6])] * 4, 12, draws=300)
    assert same.observed == 1 and same.corrected == 1 and same.p == pytest.approx(1 / 301)
    assert same.expected == pytest.approx(stability.expected_jaccard(6, 6, 12))
    random = [[masks.random_mask(NAMES, 6, 10 * s + i) for i in range(4)] for s in range(30)]
    assert 0.3 < np.mean([stability.overlap(several, 12, draws=99).p for several in random]) < 0.7
    whole = stability.overlap([set(NAMES)] * 2, 12, draws=20)
    assert whole.p == 1 and np.isnan(whole.corrected)
    with pytest.raises(AimfairError, match="needs two masks"):
        stability.overlap([set(NAMES)], 12)


def test_what_noise_explains_is_taken_off():
    score, noise = {"a": 5.0, "b": 1.0}, {"a": 3.0, "b": 2.0}
    assert stability.above_noise(score, noise) == pytest.approx({"a": 4.0, "b": 0.0})
    assert stability.floor({"a": 6.0}, {"a": 8.0}) == pytest.approx({"a": 5.0})
    with pytest.raises(AimfairError, match="same tensors"):
        stability.floor({"a": 1.0}, {"b": 1.0})
