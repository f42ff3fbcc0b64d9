"""Every figure shows the numbers it was given, fits the page and needs no colour to be read."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from aimfair import models, paper, plots
from aimfair.environment import AimfairError
from aimfair.masks import select
from aimfair.metrics import FairnessReport, published_report
from aimfair.training import History
from beyond import figures

COUNTS = (5354, 4621, 6893, 3094)
GROUPS = plots.group_names("Smiling", "Male")
NAMES = [name for name, _ in models.build("resnet18-slim", 0).named_parameters()]
LEVEL = {"biased": {"acc": 89, "wst": 71, "eo_max": 24}}
STEPS = ["plain", "25 prompts", "50 prompts", "50 prompts + poses"]
BLOCKS = ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]


def reports(methods=("ERM", "full fine-tuning", "AIM-Fair"), seeds=5) -> dict[str, list[FairnessReport]]:
    rng = np.random.default_rng(0)
    return {
        method: [
            published_report(rng.normal((84, 95 - 2 * i, 94 - i, 72 + 5 * i), 1).clip(0, 100), COUNTS)
            for _ in range(seeds)
        ]
        for i, method in enumerate(methods)
    }


def as_rows(several: dict[str, list[FairnessReport]], column="method", **more) -> pd.DataFrame:
    return pd.DataFrame(
        [{column: m, "seed": s} | r.as_dict() | more for m, rs in several.items() for s, r in enumerate(rs)]
    )


def sweep(column: str, values) -> pd.DataFrame:
    """Three methods at several values, on three seeds; the second value is chosen."""
    several = []
    for i, value in enumerate(values):
        lower = 3 * i**2 * np.array((1, 1, 0, -0.5))
        moved = {m: [published_report(r.cells - lower, COUNTS) for r in rs] for m, rs in reports(seeds=3).items()}
        several.append(as_rows(moved).assign(**{column: value}, chosen=i == 1))
    return pd.concat(several, ignore_index=True)


def stepped(values=tuple(STEPS), column="step") -> pd.DataFrame:
    """Two methods at each of some named values, on three seeds."""
    return pd.concat([as_rows(reports(values, 3), column, method=m) for m in ("synthetic only", "AIM-Fair")])


def gaps() -> tuple[dict[str, float], dict[str, float]]:
    rng = np.random.default_rng(1)
    shared = rng.random(len(NAMES))
    return tuple(dict(zip(NAMES, shared + 0.3 * rng.random(len(NAMES)), strict=True)) for _ in range(2))  # type: ignore[return-value]


def noisy():
    scores = dict(zip(("domain gap", "bias gap"), gaps(), strict=True))
    return scores, {name: {tensor: value / 3 for tensor, value in of.items()} for name, of in scores.items()}


def guessed() -> pd.DataFrame:
    rows = [("EIIL", n, seed, 30 + 4 * n + seed, 70 - 5 * n) for n in (1, 3, 8) for seed in (0, 2)]
    return pd.DataFrame([*rows, ("JTT", 3, 0, 42, 55)], columns=["method", "setting", "seed", "recall", "precision"])


def faces(n=12) -> torch.Tensor:
    return torch.arange(n * 3 * 16 * 16).reshape(n, 3, 16, 16).remainder(251).to(torch.uint8)


def mentioned() -> pd.DataFrame:
    return pd.DataFrame([[5, 0, 7, 0], [3, 3, 3, 3]] * 12, [f"short curly brown hair {i}" for i in range(24)])


def selected() -> pd.DataFrame:
    rows = [("random", 40.3, 31.0), ("random", 40.3, 77.0), ("AIM-Fair", 77.4, 46.0), ("everything", 100.0, 100.0)]
    return pd.DataFrame(rows, columns=["method", "tensors", "parameters"])


def agreed() -> pd.DataFrame:
    rows = [(s, g, 90 + i, 85 + i, 94 + i) for s in ("target", "protected") for i, g in enumerate("abcd")]
    return pd.DataFrame(rows, columns=["series", "group", "value", "low", "high"])


def grown() -> pd.DataFrame:
    rows = [(s, n, d + f / n) for s, d in (("real", 0), ("drawn", 9)) for n in (20, 80, 320) for f in (90, 100, 110)]
    return pd.DataFrame(rows, columns=["series", "size", "value"])


def apart() -> pd.DataFrame:
    rows = [(r, s, d + 0.1 * i, -d, 0.0) for r, d in (("one", 1), ("other", -1)) for i, s in enumerate(range(6))]
    return pd.DataFrame(rows, columns=["row", "seed", "acc", "wst", "eo_max"])


def mapped(n=40) -> pd.DataFrame:
    rng, group = np.random.default_rng(2), np.arange(n) % 4
    return pd.DataFrame({"x": rng.random(n), "y": rng.random(n), "target": group // 2, "protected": group % 2})


def frozen() -> dict[str, list[FairnessReport]]:
    return reports(("biased", *(f"{block} frozen" for block in BLOCKS), "nothing frozen"), seeds=3)


def compared() -> pd.DataFrame:
    kinds = ((3, 2, "holds"), (-4, 2, "contradicted"), (1, 0, "undecided"), (9, np.nan, ""))
    rows = [(m, paper, ours, ours - 1, ours + 1.5, kind) for m in ("acc", "wst", "eo") for paper, ours, kind in kinds]
    return pd.DataFrame(rows, columns=["metric", "paper", "ours", "low", "high", "verdict"])


def moved() -> pd.DataFrame:
    """Two methods at 21 thresholds, on two seeds."""
    cuts = np.linspace(-1, 1, 21)
    rows = [(m, s, t, 80 - t**2 + s, 70 + i + t, 20 - t) for i, m in enumerate("ab") for s in (0, 2) for t in cuts]
    return pd.DataFrame(rows, columns=["method", "seed", "threshold", "acc", "wst", "eo_max"])


def candidates() -> pd.DataFrame:
    rows = [(name, seed, 80.0 + 2 * i + seed, 70.0 + i, 20.0 - i) for i, name in enumerate("abcd") for seed in range(3)]
    return pd.DataFrame(rows, columns=["method", "seed", "validation_accuracy", "wst", "eo_max"])


EXAMPLES = {
    "accuracy_fairness": lambda: plots.accuracy_fairness(reports(seeds=1), "eo_max"),
    "accuracy_fairness in panels": lambda: plots.accuracy_fairness(
        reports(["ERM", *"abcdefgh"]), "eo_max", panels={"none": [*"abcdh"], "oracles": [*"efgh"]}, reference="ERM"
    ),
    "learning_rate_curves": lambda: plots.learning_rate_curves(sweep("lr", (0.001, 0.01, 0.1))),
    "paths": lambda: plots.paths(guessed(), "recall", "precision", along="setting"),
    "by_metric to scale": lambda: plots.by_metric(sweep("k", (40, 50, 62)), "k", baselines=LEVEL, label="k"),
    "by_metric of many": lambda: plots.by_metric(moved(), "threshold", ("wst", "acc"), series="method"),
    "by_metric in order": lambda: plots.by_metric(
        sweep("k", (40, 50, 62)), "k", series="method", order=[40, 50, 62], baselines=LEVEL, title="methods of the book"
    ),
    "by_metric of blocks": lambda: plots.by_metric(
        stepped(BLOCKS, "block"), "block", series="method", order=BLOCKS, joined=False, baselines=LEVEL
    ),
    "by_metric of units": lambda: plots.by_metric(
        stepped(), "step", ("acc", "wst"), series="method", order=STEPS, joined=False, unit="seed", baselines=LEVEL
    ),
    "by_row": lambda: plots.by_row(apart(), row="row"),
    "by_row of a reference": lambda: plots.by_row(frozen(), order=list(frozen()), reference="nothing frozen"),
    "by_size": lambda: figures.by_size(
        grown(), "distance", limits={"real": 0, "drawn": 9}, marks={80: "here"}, log=True
    ),
    "group_points": lambda: figures.group_points(agreed(), "agreement (%)"),
    "group_bars": lambda: plots.group_bars(reports(), GROUPS),
    "contact_sheet": lambda: plots.contact_sheet(faces(), ["not smiling", "smiling"], columns=6),
    "counts": lambda: figures.counts({"train": (200, 1800, 1800, 200), "test": COUNTS}, GROUPS),
    "feature_maps": lambda: figures.feature_maps(
        {"ERM": mapped(), "AIM-Fair": mapped(80), "mixed": mapped()}, GROUPS, (0, 3)
    ),
    "gap_rank": lambda: plots.gap_rank(*gaps(), k=55),
    "mask_by_layer": lambda: plots.mask_by_layer([set(NAMES[:40]), set(NAMES[20:])], NAMES),
    "training_curve": lambda: plots.training_curve(History([0.6, 0.4, 0.3], [71.0, 84.0, 83.0], chosen=1)),
    "cue_thresholds": lambda: figures.cue_thresholds(0.7, {"women": -0.5, "men": 0.5}, ("not smiling", "smiling")),
    "mentions": lambda: figures.mentions(mentioned(), "Smiling", "Male"),
    "eo_forms": lambda: figures.eo_forms(paper.recomputed(paper.results())),
    "shares": lambda: figures.shares(selected()),
    "score_noise": lambda: figures.score_noise(*noisy()),
    "judged": lambda: figures.judged(candidates(), ["a", "gone", "c"]),
    "effects": lambda: figures.effects(compared()),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    before = dict(plt.rcParams)
    every = {name: example() for name, example in EXAMPLES.items()}
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before  # nothing is left open, and no style behind
    return every


def test_every_figure_has_an_example_here() -> None:
    own = {name for name, f in vars(figures).items() if getattr(f, "__module__", "") == figures.__name__}
    offered = {name for name, f in vars(plots).items() if getattr(f, "__annotations__", {}).get("return") == "Figure"}
    assert {name.split()[0] for name in EXAMPLES} == offered | own


@pytest.mark.parametrize("name", EXAMPLES)
def test_figures_fit_the_page_and_can_be_read(drawn, name) -> None:
    figure = drawn[name]
    FigureCanvasAgg(figure).draw()
    width, height = figure.get_size_inches() * figure.dpi
    assert figure.dpi == 90 and width <= 700 and height <= 700
    page = figure.bbox
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible() and text.get_window_extent().width:
            assert text.get_fontsize() >= 9, text.get_text()
    for part in (*figure.axes, *figure.legends):
        box = part.get_tightbbox()
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1 and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1


def test_inputs_that_cannot_be_drawn_are_refused_with_what_is_wrong() -> None:
    for draw, message in (
        (lambda: plots.learning_rate_curves(sweep("k", (1, 2))), r"lack columns \['lr'\]"),
        (lambda: plots.by_metric(stepped(), "block"), r"lack columns \['block'\]"),
        (lambda: plots.group_bars({}), "0 rows"),
        (lambda: plots.by_row(reports(), reference="nothing"), "0 rows"),
        (lambda: figures.counts({"train": (1, 2, 3)}), "four group sizes"),
        (lambda: plots.contact_sheet(faces().float()), "uint8"),
        (lambda: plots.contact_sheet(faces(5), ["a", "b"], 2), "2 titles fit neither the 3 rows"),
        (lambda: plots.mask_by_layer({"fc.gamma"}, NAMES), r"does not have: fc\.gamma"),
        (lambda: figures.feature_maps({}), "no maps"),
        (lambda: figures.mentions(mentioned().iloc[:, :2], "t", "p"), "four columns"),
        (lambda: figures.score_noise({"a": {"x": 1.0}}, {"a": {"y": 1.0}}), "same tensors"),
    ):
        with pytest.raises(AimfairError, match=message):
            draw()


# ------------------------------------------------------------------------------- metrics with their intervals


def points(axes) -> list[np.ndarray]:
    """The (n, 2) points of each line with the markers of a method."""
    marked = (line for line in axes.lines if line.get_marker() in {*"osD^vPX*"} and len(line.get_xdata()))
    return [line.get_xydata() for line in marked]


def test_points_are_means_at_their_places_and_a_missing_one_is_left_out() -> None:
    rows = sweep("lr", (0.001, 0.01, 0.1))
    means = rows.groupby(["method", "lr"])["wst"].mean()
    rows = rows[(rows["method"] != "ERM") | (rows["lr"] != 0.01)]
    axes = plots.by_metric(rows, "lr", ("wst",), series="method", order=[0.001, 0.01, 0.1]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    for method, line in zip(rows["method"].unique(), points(axes), strict=True):
        found = line[np.isfinite(line[:, 1])]
        kept = [0, 2] if method == "ERM" else [0, 1, 2]
        assert found[:, 1] == pytest.approx(means[method].to_numpy()[kept])
        assert np.round(found[:, 0]).tolist() == kept
    many = plots.by_metric(moved(), "threshold", ("acc",), series="method").axes[0]
    assert many.lines[0].get_ydata() == pytest.approx(81 - np.linspace(-1, 1, 21) ** 2) and len(many.collections) == 2
    scaled = plots.by_metric(rows[rows["method"] == "AIM-Fair"], "lr", ("wst",)).axes[0]
    (line,) = points(scaled)
    assert line == pytest.approx(np.array(list(means["AIM-Fair"].items())))


def test_units_are_joined_with_themselves() -> None:
    rows = stepped()
    rows = rows[(rows["method"] == "AIM-Fair") & (rows["step"] != "25 prompts")].sample(frac=1, random_state=0)
    axes = plots.by_metric(rows, "step", ("wst",), order=STEPS, joined=False, unit="seed").axes[0]
    lines = [line.get_data() for line in axes.lines if line.get_marker() == "."]
    assert len(lines) == 3
    for seed, (x, y) in enumerate(lines):
        own = rows[rows["seed"] == seed].set_index("step")["wst"]
        assert list(x) == [0, 2, 3] and list(y) == pytest.approx([own[STEPS[i]] for i in (0, 2, 3)])


def test_rows_run_from_top_to_bottom_with_every_seed_and_the_mean() -> None:
    wst, acc = plots.by_row(apart(), ("wst", "acc"), row="row").axes
    assert [label.get_text() for label in wst.get_yticklabels()] == ["one", "other"] and wst.yaxis_inverted()
    seeds = [c.get_offsets()[:, 0].tolist() for c in wst.collections if len(c.get_offsets()) == 6]
    assert seeds == [[-1] * 6, [1] * 6] and points(acc)[0][0, 0] == pytest.approx(1.25)
    rows, order = frozen(), list(frozen())
    del rows["layer2 frozen"]
    axes = plots.by_row(rows, ("wst",), order=order, reference="nothing frozen").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == order
    means = {order.index(name): np.mean([r.wst for r in several]) for name, several in rows.items()}
    at = {round(y): x for line in points(axes) for x, y in line if np.isfinite(x)}
    assert at == pytest.approx(means) and axes.lines[0].get_xdata() == pytest.approx([means[len(order) - 1]] * 2)


def test_sizes_have_means_bands_and_the_limits_that_a_logarithm_can_show() -> None:
    axes = figures.by_size(grown(), "distance", limits={"real": 0, "drawn": 9}, log=True).axes[0]
    real, drawn = points(axes)
    assert real[:, 1] == pytest.approx([5, 1.25, 0.3125]) and drawn[:, 0].tolist() == [20, 80, 320]
    dashed = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 1 and set(dashed[0]) == {9}
    low, high = (f(axes.collections[0].get_paths()[0].vertices[:, 1]) for f in (np.min, np.max))
    assert low == pytest.approx(np.quantile([90, 100, 110], 0.025) / 320)
    assert high == pytest.approx(np.quantile([90, 100, 110], 0.975) / 20)


def test_points_of_series_stand_beside_each_other_with_their_intervals() -> None:
    axes = figures.group_points(agreed().iloc[:-1], "agreement (%)").axes[0]  # one group of one series is missing
    first, second = (container.lines[0].get_data() for container in axes.containers)
    assert list(first[1]) == [90, 91, 92, 93] and (first[0] < second[0]).all() and np.isnan(second[1][3])
    ends = np.array(axes.containers[0].lines[2][0].get_segments())[:, :, 1]
    assert ends.tolist() == [[85 + i, 94 + i] for i in range(4)]


def test_the_chosen_epoch_is_ringed() -> None:
    several = {"a": History([0.6, 0.4], [70.0, 80.0], chosen=1), "b": History([0.5, 0.3], [75.0, 74.0], chosen=0)}
    rings = plots.training_curve(several).axes[1].collections
    assert [ring.get_offsets().tolist()[0] for ring in rings] == [[2, 80], [1, 75]]


# --------------------------------------------------------------------------- the plane of accuracy and fairness


def test_a_method_looks_the_same_in_every_figure_and_nothing_else_looks_like_it() -> None:
    alone, later = plots.looks(["AIM-Fair"]), plots.looks(["other", "Full fine-tuning", "AIM-Fair", "another"])
    assert alone["AIM-Fair"] == later["AIM-Fair"]
    assert len({look["color"] for look in later.values()}) == 4
    assert plots.looks(["ERM (baseline)"])["ERM (baseline)"] == plots.looks(["Baseline (ERM)"])["Baseline (ERM)"]
    assert len({tuple(look.values()) for look in plots.looks(["AIM-Fair", *map(str, range(55))]).values()}) == 56


def test_panels_share_axes_and_reference_but_not_looks() -> None:
    several = reports(["ERM", *"abcdefgh"])
    panels = {"one": ["a", "h"], "two": [*"bcd"], "three": [*"efgh"]}
    for count in (1, 2, 3):
        some = dict(list(panels.items())[:count])
        every = plots.accuracy_fairness(several, "eo_max", panels=some, reference="ERM").axes
        mean = np.mean([report.eo_max for report in several["ERM"]])
        for axes, (heading, names) in zip(every, some.items(), strict=True):
            assert axes.get_title() == heading and axes.get_xlim() == every[0].get_xlim()
            assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ERM", *names]
            assert axes.lines[0].get_xdata()[0] == pytest.approx(mean)
            assert axes.xaxis_inverted() and not axes.yaxis_inverted()
    pd.testing.assert_frame_equal(plots.as_frame(several), as_rows(several).drop(columns="seed"))


def test_paths_join_the_means_of_complete_seeds_and_name_their_ends() -> None:
    axes = plots.paths(guessed(), "recall", "precision", along="setting").axes[0]
    path, point = axes.lines
    assert path.get_xydata().tolist() == [[35, 65], [43, 55], [63, 30]] and point.get_xydata().tolist() == [[42, 55]]
    assert path.get_markersize() > point.get_markersize()
    assert {text.get_text() for text in axes.texts} == {"1", "8", "3"}
    frame = sweep("lr", (0.001, 0.01, 0.1))
    lone = frame.iloc[:1].assign(seed=99, acc=0.0, wst=0.0)
    with_it, without = (plots.learning_rate_curves(f).axes[0] for f in (pd.concat([frame, lone]), frame))
    assert with_it.lines[0].get_xydata().tolist() == without.lines[0].get_xydata().tolist()
    means = frame[frame["chosen"]].groupby("method", sort=False)[["wst", "acc"]].mean().to_numpy()
    assert np.vstack([np.asarray(ring.get_offsets()) for ring in without.collections]) == pytest.approx(means)
    incomplete = frame[frame["lr"] == frame["seed"].map({0: 0.001}).fillna(0.1)]
    assert not plots.learning_rate_curves(incomplete).axes[0].lines


def test_values_at_the_ends_of_paths_do_not_lie_on_each_other() -> None:
    rows = [
        {"method": m, "seed": 1, "lr": rate, "wst": 60 + 100 * rate * shift, "acc": 90 + 50 * rate * shift}
        for m, shift in (("a", 1), ("b", -1), ("c", 0.5))
        for rate in (0.001, 0.1)
    ]
    written = [text.get_text() for text in plots.learning_rate_curves(pd.DataFrame(rows)).axes[0].texts]
    assert sorted(written) == ["0.001", "0.1", "0.1", "0.1"]


# ----------------------------------------------------------------------------------------- faces and groups


def test_bars_have_the_heights_of_the_cells_and_different_hatches() -> None:
    report = published_report((83.57, 98.50, 95.36, 71.52), COUNTS)
    figure = plots.group_bars({"ERM": [report], "again": [report]})
    bars = [container for container in figure.axes[0].containers if hasattr(container, "patches")]
    assert [bar.get_height() for group in bars for bar in group][::2] == pytest.approx(report.cells)
    assert len({group[0].get_hatch() for group in bars}) == 4
    whisker = bars[3].errorbar.lines[2][0].get_segments()[0]
    assert whisker[1, 1] - whisker[0, 1] == pytest.approx(2 * 1.96 * 0.8114, abs=0.002)


def test_the_contact_sheet_shows_every_pixel_in_place_and_has_room_for_its_titles() -> None:
    images = faces(5)
    sheet = plots.contact_sheet(images, columns=2).axes[0].images[0].get_array()
    assert (sheet[-16:, :16] == images[4].permute(1, 2, 0).numpy()).all() and (sheet[-16:, 17:] == 255).all()
    assert len(plots.contact_sheet(images, list("abcde"), columns=3).axes[0].texts) == 5
    figure = plots.contact_sheet(faces(8), plots.group_names("Smiling", "Young"), columns=2)
    FigureCanvasAgg(figure).draw()
    assert min(text.get_window_extent().x0 for text in figure.axes[0].texts) >= 0


def test_counts_are_written_unless_too_thin() -> None:
    figure = figures.counts({"train": (1000, 9000, 9000, 1000), "mine": (1, 97, 1, 1)})
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written.count("9,000") == 2 and "97" in written and "1" not in written


# --------------------------------------------------------------------------------------- the paper's figures


def test_gap_rank_counts_what_the_mask_selects() -> None:
    chosen, rest = plots.gap_rank(*gaps(), 50).axes[0].collections[:2]
    size = len(select(*gaps(), 50))
    assert (len(chosen.get_offsets()), len(rest.get_offsets())) == (size, 62 - size)
    x, y = np.asarray(chosen.get_offsets()).T
    assert x.max() <= 50 and y.min() > 62 - 50


def test_mask_bars_are_shares_of_the_masks_and_lie_in_the_blocks_of_the_network() -> None:
    figure = plots.mask_by_layer([set(NAMES[:40]), set(NAMES[20:])], NAMES)
    bars = sorted(figure.axes[0].patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == [0.5] * 20 + [1] * 20 + [0.5] * 22
    names = [name for name, _ in models.build("vit-slim", 0).named_parameters()]
    axes = plots.mask_by_layer(set(names[:10]), names).axes[0]
    stages = ["stem", *(f"block {i}" for i in range(6)), "fc_norm", "head"]
    assert [label.get_text() for label in axes.get_xticklabels()] == stages
    kinds = {c.get_label(): len(c.patches) for c in axes.containers}
    assert kinds == {"weights of a layer": 30, "norm, weight": 17, "norm, bias": 17, "other": 27}


def test_maps_show_every_face_once_and_fade_the_groups_that_are_not_asked_for() -> None:
    figure = figures.feature_maps({"a": mapped(40), "b": mapped(80), "c": mapped(40)}, shown=(1,))
    assert [sum(len(line.get_xdata()) for line in axes.lines) for axes in figure.axes] == [40, 80, 40]
    lines = figure.axes[0].lines
    assert [line.get_alpha() > 0.5 for line in lines] == [False, True, False, False]
    assert len({(line.get_marker(), line.get_markerfacecolor()) for line in lines}) == 4  # without any colour


# -------------------------------------------------------------------------------- figures of single chapters


def test_effects_are_drawn_where_there_are_runs_on_a_field_that_holds_them_all() -> None:
    (axes,) = figures.effects(compared(), metric=("wst",)).axes
    drawn = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axes.containers}
    assert drawn == {"stands": [[3, 2]], "contradicted": [[-4, 2]], "cannot be judged": [[1, 0]]}
    whisker = axes.containers[0].lines[2][0].get_segments()[0]
    assert whisker.tolist() == [[3, 1], [3, 3.5]] and axes.get_xlim() == pytest.approx((-4.4, 4.4))
    assert axes.get_ylim() == pytest.approx((-3.85, 3.85))


def test_eo_forms_shows_both_distances_of_every_row() -> None:
    rows = paper.recomputed(paper.results())
    by_maximum, by_mean = figures.eo_forms(rows).axes[0].collections
    assert np.asarray(by_maximum.get_offsets())[:, 1] == pytest.approx(rows["eo"] - rows["eo_max"])
    assert np.asarray(by_mean.get_offsets())[:, 1] == pytest.approx(rows["eo"] - rows["eo_mean"])


def test_hatched_errors_lie_beyond_the_thresholds() -> None:
    axes = figures.cue_thresholds(0.5, {"lenient": -0.4, "strict": 0.7}, ("no", "yes")).axes[0]
    false_positives, misses = (band.get_paths()[0].get_extents() for band in axes.collections)
    assert false_positives.x0 == pytest.approx(-0.4, abs=0.02) and misses.x1 == pytest.approx(0.7, abs=0.02)


def test_mentions_link_what_differs_between_the_two_targets() -> None:
    women, men = (p.collections[0].get_segments() for p in figures.mentions(mentioned().head(2), "t", "p").axes)
    assert [(a[0], b[0]) for a, b in women] == [(5, 7), (3, 3)] and [(a[0], b[0]) for a, b in men] == [(0, 0), (3, 3)]


def test_shares_and_scores_have_equal_scales_on_both_axes() -> None:
    axes = figures.shares(selected()).axes[0]
    assert [c.get_offsets().tolist() for c in axes.collections][:2] == [[[40.3, 31.0], [40.3, 77.0]], [[77.4, 46.0]]]
    assert axes.get_xlim() == axes.get_ylim()
    scores, _ = noisy()
    for axes in figures.score_noise(scores, scores).axes:
        x, y = np.asarray(axes.collections[0].get_offsets()).T
        assert np.array_equal(x, y) and len(x) == 62


def test_candidates_are_drawn_at_their_means_and_named_ones_in_colour() -> None:
    axes = figures.judged(candidates(), ["a", "gone", "c"]).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[81, 70]], [[85, 72]]]
    assert axes.collections[0].get_offsets().tolist() == [[83, 71], [87, 73]]


# ------------------------------------------------------------------------------------ pictures in a notebook


def test_a_jpeg_is_what_the_notebook_stores(drawn) -> None:
    image = plots.jpeg(drawn["contact_sheet"])
    assert image.data[:2] == b"\xff\xd8" and image._repr_mimebundle_()[0].keys() == {"image/jpeg"}


def test_a_picture_of_few_colours_is_smaller_looks_the_same_and_is_what_a_notebook_stores(drawn) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    figure = drawn["feature_maps"]
    usual, few = io.BytesIO(), plots.png(figure)
    figure.savefig(usual, format="png", dpi=figure.dpi)
    before, after = (np.asarray(Image.open(f).convert("RGB"), float) for f in (usual, io.BytesIO(few)))
    assert len(few) < 0.6 * len(usual.getvalue()) and before.shape == after.shape
    assert np.abs(before - after).mean() < 1 and np.abs(before - after).max() < 16
    colourful = Figure(figsize=(2, 2))
    colourful.add_axes((0, 0, 1, 1)).imshow(np.random.default_rng(0).random((90, 90, 3)))
    assert Image.open(io.BytesIO(plots.png(colourful))).mode == "RGB"
    shell = InteractiveShell.instance()
    try:
        counts = figures.counts({"train": (1, 2, 3, 4)})
        stored, _ = shell.display_formatter.format(counts)
    finally:
        InteractiveShell.clear_instance()
    assert stored["image/png"] == plots.png(counts)
