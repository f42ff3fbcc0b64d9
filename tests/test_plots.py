"""Every figure shows the numbers it was given, fits the page and needs no colour to be read."""

import io
from types import SimpleNamespace

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
from aimfair.metrics import FairnessReport, published_report
from aimfair.training import History

COUNTS = (5354, 4621, 6893, 3094)
NAMES = [name for name, _ in models.build("resnet18-slim", 0).named_parameters()]


def reports(methods=("ERM", "full fine-tuning", "AIM-Fair"), seeds=5) -> dict[str, list[FairnessReport]]:
    rng = np.random.default_rng(0)
    return {
        method: [
            published_report(rng.normal((84, 95 - 2 * i, 94 - i, 72 + 5 * i), 1).clip(0, 100), COUNTS)
            for _ in range(seeds)
        ]
        for i, method in enumerate(methods)
    }


def sweep(column: str, values) -> pd.DataFrame:
    rows = [
        {"method": method, column: value, "seed": seed, "chosen": value == values[1]}
        | published_report(report.cells - 3 * i**2 * np.array((1, 1, 0, -0.5)), COUNTS).as_dict()
        for i, value in enumerate(values)
        for method, several in reports(seeds=3).items()
        for seed, report in enumerate(several)
    ]
    return pd.DataFrame(rows)


def many(rows: pd.DataFrame) -> pd.DataFrame:
    """Three times the methods, under names as long as those of the book."""
    return pd.concat([rows.assign(method=rows["method"] + f", variant {i}") for i in range(3)])


def gaps() -> tuple[dict[str, float], dict[str, float]]:
    rng = np.random.default_rng(1)
    shared = rng.random(len(NAMES))
    return (dict(zip(NAMES, shared + 0.3 * rng.random(len(NAMES)), strict=True)) for _ in range(2))  # type: ignore[return-value]


def guessed() -> pd.DataFrame:
    rows = [("EIIL", n, seed, 30 + 4 * n + seed, 70 - 5 * n) for n in (1, 3, 8) for seed in (0, 2)]
    return pd.DataFrame([*rows, ("JTT", 3, 0, 42, 55)], columns=["method", "setting", "seed", "recall", "precision"])


def faces(n=12) -> torch.Tensor:
    return torch.arange(n * 3 * 16 * 16).reshape(n, 3, 16, 16).remainder(251).to(torch.uint8)


def mentioned() -> pd.DataFrame:
    return pd.DataFrame([[5, 0, 7, 0], [3, 3, 3, 3]] * 12, [f"short curly brown hair {i}" for i in range(24)])


BLOCKS = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")


def in_turn() -> pd.DataFrame:
    rows = [
        {"method": method, "block": block} | report.as_dict()
        for method in ("updated", "frozen")
        for block, several in reports(BLOCKS[::-1], seeds=3).items()
        for report in several
    ]
    return pd.DataFrame(rows)


STEPS = ("plain", "25 prompts", "50 prompts", "50 prompts + poses")


def stepped() -> pd.DataFrame:
    rows = [
        {"method": method, "step": step, "seed": seed} | report.as_dict()
        for method in ("synthetic only", "AIM-Fair")
        for step, several in reports(STEPS).items()
        for seed, report in enumerate(several)
    ]
    return pd.DataFrame(rows)


def selected() -> pd.DataFrame:
    rows = {"random, 40 %": [(40.3, 31.0), (40.3, 77.0)], "AIM-Fair": [(77.4, 46.0)], "everything": [(100.0, 100.0)]}
    return pd.DataFrame(
        [(m, *s) for m, several in rows.items() for s in several], columns=["method", "tensors", "parameters"]
    )


def agreed() -> pd.DataFrame:
    rows = [(s, g, 90 + i, 85 + i, 94 + i) for s in ("target", "protected") for i, g in enumerate("abcd")]
    return pd.DataFrame(rows, columns=["series", "group", "value", "low", "high"])


def grown() -> pd.DataFrame:
    rows = [(s, n, d + f / n) for s, d in (("real", 0), ("drawn", 9)) for n in (20, 80, 320) for f in (90, 100, 110)]
    return pd.DataFrame(rows, columns=["series", "size", "distance"])


def apart() -> pd.DataFrame:
    rows = [(r, s, d + 0.1 * i, -d, 0.0) for r, d in (("one", 1), ("other", -1)) for i, s in enumerate(range(6))]
    return pd.DataFrame(rows, columns=["row", "seed", "acc", "wst", "eo_max"])


def mapped(n=40) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    group = np.arange(n) % 4
    return pd.DataFrame({"x": rng.random(n), "y": rng.random(n), "target": group // 2, "protected": group % 2})


def frozen() -> dict[str, list[FairnessReport]]:
    return reports(("biased", *(f"{block} frozen" for block in BLOCKS), "nothing frozen"), seeds=3)


def judged() -> pd.DataFrame:
    rows = [
        (metric, theirs, here, here - 1, here + 1.5, word)
        for metric in ("acc", "wst", "eo")
        for theirs, here, word in (
            (3, 2, "holds"),
            (-4, 2, "contradicted"),
            (1, 0, "undecided"),
            (9, np.nan, ""),
        )
    ]
    return pd.DataFrame(rows, columns=["metric", "paper", "ours", "low", "high", "verdict"])


def moved() -> pd.DataFrame:
    rows = [
        (m, s, t, 80 - t**2 + s, 70 + i + t, 20 - t) for i, m in enumerate("ab") for s in (0, 2) for t in (-1, 0, 1)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "threshold", "acc", "wst", "eo_max"])


def noisy() -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    scores = dict(zip(("domain gap", "bias gap"), gaps(), strict=True))
    return scores, {name: {tensor: value / 3 for tensor, value in of.items()} for name, of in scores.items()}


def candidates() -> pd.DataFrame:
    rows = [(name, seed, 80.0 + 2 * i + seed, 70.0 + i, 20.0 - i) for i, name in enumerate("abcd") for seed in range(3)]
    return pd.DataFrame(rows, columns=["method", "seed", "validation_accuracy", "wst", "eo_max"])


EXAMPLES = {
    "accuracy_fairness": lambda: plots.accuracy_fairness(reports(), "eo_max"),
    "accuracy_fairness_panels": lambda: plots.accuracy_fairness_panels(
        reports(["ERM", *"abcdefgh"]), {"told nothing": [*"abcd", "h"], "oracles": [*"efgh"]}, "ERM", "eo_max"
    ),
    "by_part": lambda: plots.by_part(in_turn(), BLOCKS, baselines={"biased": {"acc": 89, "wst": 71, "eo_max": 24}}),
    "judged": lambda: plots.judged(candidates(), ["a", "gone", "c"]),
    "contact_sheet": lambda: plots.contact_sheet(faces(), ["not smiling", "smiling"], columns=6),
    "counts": lambda: plots.counts(
        {"train": (200, 1800, 1800, 200), "test": COUNTS}, plots.group_names("Smiling", "Male")
    ),
    "cue_thresholds": lambda: plots.cue_thresholds(0.7, {"women": -0.5, "men": 0.5}, ("not smiling", "smiling")),
    "distance_by_size": lambda: plots.distance_by_size(grown(), "distance", {"real": 0, "drawn": 9}),
    "effects": lambda: plots.effects(judged()),
    "eo_forms": lambda: plots.eo_forms(paper.recomputed(paper.results())),
    "feature_maps": lambda: plots.feature_maps(
        {"ERM": mapped(), "AIM-Fair": mapped(80), "mixed": mapped()}, plots.group_names("Smiling", "Male"), (0, 3)
    ),
    "gap_rank": lambda: plots.gap_rank(*gaps(), k=55),
    "group_bars": lambda: plots.group_bars(reports(), plots.group_names("Smiling", "Male")),
    "group_points": lambda: plots.group_points(agreed(), "agreement (%)"),
    "guesses": lambda: plots.guesses(guessed(), share=10),
    "layer_freezing": lambda: plots.layer_freezing(frozen(), list(frozen()), "nothing frozen"),
    "learning_rate_curves": lambda: plots.learning_rate_curves(sweep("lr", (0.001, 0.01, 0.1))),
    "mask_by_layer": lambda: plots.mask_by_layer([set(NAMES[:40]), set(NAMES[20:])], NAMES),
    "mentions": lambda: plots.mentions(mentioned(), "Smiling", "Male"),
    "noise_floor": lambda: plots.noise_floor(
        {n: np.arange(100) / n for n in (50, 500, 5000)}, "EO", marks={800: "here"}
    ),
    "paired_differences": lambda: plots.paired_differences(apart()),
    "paired_steps": lambda: plots.paired_steps(
        stepped(), STEPS, baselines={"biased": {"acc": 89, "wst": 71, "eo_max": 24}}
    ),
    "score_noise": lambda: plots.score_noise(*noisy()),
    "shares": lambda: plots.shares(selected()),
    "sweep_curves": lambda: plots.sweep_curves(
        many(sweep("k", (40, 50, 62))), "k", "method", baselines={"ERM": {"acc": 89, "wst": 71, "eo_max": 24}}
    ),
    "threshold_curves": lambda: plots.threshold_curves(moved()),
    "topk_curve": lambda: plots.topk_curve(
        sweep("k", (40, 50, 62)), baselines={"ERM": {"acc": 89, "wst": 71, "eo_max": 24}}
    ),
    "training_curve": lambda: plots.training_curve(History([0.6, 0.4, 0.3], [71.0, 84.0, 83.0], chosen=1)),
}


def test_every_figure_has_an_example_here() -> None:
    assert set(plots.FIGURES) == set(EXAMPLES)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return {name: example() for name, example in EXAMPLES.items()}


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


@pytest.mark.parametrize("name", EXAMPLES)
def test_drawing_leaves_nothing_open_and_no_style_behind(name) -> None:
    import matplotlib.pyplot as plt

    before = dict(plt.rcParams)
    EXAMPLES[name]()
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before


def test_bars_have_the_heights_of_the_cells_and_different_hatches() -> None:
    report = published_report((83.57, 98.50, 95.36, 71.52), COUNTS)
    figure = plots.group_bars({"ERM": [report], "again": [report]})
    bars = [container for container in figure.axes[0].containers if hasattr(container, "patches")]
    assert [bar.get_height() for group in bars for bar in group][::2] == pytest.approx(report.cells)
    assert len({group[0].get_hatch() for group in bars}) == 4
    whisker = bars[3].errorbar.lines[2][0].get_segments()[0]
    assert whisker[1, 1] - whisker[0, 1] == pytest.approx(2 * 1.96 * 0.8114, abs=0.002)


def test_a_frame_and_its_reports_draw_the_same() -> None:
    frame = pd.DataFrame([{"method": m} | r.as_dict() for m, several in reports().items() for r in several])
    for draw in (plots.group_bars, plots.accuracy_fairness):
        one, other = (FigureCanvasAgg(draw(results)) for results in (frame, reports()))
        one.draw(), other.draw()
        assert np.array_equal(np.asarray(one.buffer_rgba()), np.asarray(other.buffer_rgba()))


def test_one_seed_has_no_interval_and_many_methods_have_different_looks() -> None:
    figure = plots.accuracy_fairness(reports([f"method {i}" for i in range(12)], seeds=1), "std")
    assert figure.axes[0].xaxis_inverted() and not figure.axes[0].yaxis_inverted()
    from aimfair.plots._style import look

    assert len({tuple(look(i).values()) for i in range(56)}) == 56


def test_effects_are_drawn_where_there_are_runs_on_a_field_that_holds_them_all() -> None:
    figure = plots.effects(judged(), metric=("wst",))
    (axes,) = figure.axes
    drawn = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axes.containers}
    assert drawn == {"stands": [[3, 2]], "contradicted": [[-4, 2]], "cannot be judged": [[1, 0]]}
    whisker = axes.containers[0].lines[2][0].get_segments()[0]
    assert whisker.tolist() == [[3, 1], [3, 3.5]] and axes.get_xlim() == pytest.approx((-4.4, 4.4))
    assert axes.get_ylim() == pytest.approx((-3.85, 3.85))


def test_gap_rank_counts_what_the_mask_selects() -> None:
    from aimfair.masks import select

    domain, bias = gaps()
    figure = plots.gap_rank(domain, bias, 50)
    chosen, rest = figure.axes[0].collections[:2]
    assert len(chosen.get_offsets()) == len(select(domain, bias, 50)) and len(rest.get_offsets()) == 62 - len(
        select(domain, bias, 50)
    )
    x, y = np.asarray(chosen.get_offsets()).T
    assert x.max() <= 50 and y.min() > 62 - 50


def test_guesses_join_the_means_of_settings_and_show_the_lot() -> None:
    axes = plots.guesses(guessed(), share=10).axes[0]
    path, point, lot = axes.lines
    assert path.get_xydata().tolist() == [[35, 65], [43, 55], [63, 30]] and point.get_xydata().tolist() == [[42, 55]]
    assert path.get_markersize() > point.get_markersize() and set(lot.get_ydata()) == {10}
    assert {text.get_text() for text in axes.texts} == {"1", "8", "3", "drawn by lot"}


def test_panels_share_axes_and_reference_but_not_looks() -> None:
    several = reports(["ERM", *"abcdefgh"])
    figure = plots.accuracy_fairness_panels(several, {"one": ["a", "h"], "two": [*"bcdefgh"]}, "ERM")
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim() and left.get_ylim() == right.get_ylim()
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["ERM", "a", "h"]
    mean = np.mean([report.wst for report in several["ERM"]])
    assert all(axes.lines[0].get_xdata()[0] == pytest.approx(mean) for axes in (left, right))


def test_a_reversed_axis_is_reversed_however_many_panels_share_it() -> None:
    several = reports(["ERM", *"abc"])
    for panels in ({"one": ["a"]}, {"one": ["a"], "two": ["b", "c"]}, {"one": ["a"], "two": ["b"], "three": ["c"]}):
        for axes in plots.accuracy_fairness_panels(several, panels, "ERM", "eo_max").axes:
            assert axes.xaxis_inverted() and not axes.yaxis_inverted()


def test_mask_bars_are_shares_of_the_masks() -> None:
    figure = plots.mask_by_layer([set(NAMES[:40]), set(NAMES[20:])], NAMES)
    bars = sorted(figure.axes[0].patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == [0.5] * 20 + [1] * 20 + [0.5] * 22
    with pytest.raises(AimfairError, match=r"does not have: fc\.gamma"):
        plots.mask_by_layer({"fc.gamma"}, NAMES)


def test_mask_bars_of_a_transformer_lie_in_its_blocks() -> None:
    names = [name for name, _ in models.build("vit-slim", 0).named_parameters()]
    axes = plots.mask_by_layer(set(names[:10]), names).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "stem",
        *(f"block {i}" for i in range(6)),
        *("fc_norm", "head"),
    ]
    bars = {c.get_label(): len(c.patches) for c in axes.containers}
    assert bars == {"weights of a layer": 30, "norm, weight": 17, "norm, bias": 17, "other": 27}


def test_sweep_curves_have_a_line_for_each_value_at_its_means() -> None:
    rows = sweep("lr", (0.001, 0.01, 0.1))
    rows = rows[(rows["method"] != "ERM") | (rows["lr"] != 0.01)]  # a line may lack a point
    axes = plots.sweep_curves(rows, "lr", "method", ("wst",)).axes[0]
    lines = {c.get_label(): c.lines[0].get_ydata() for c in axes.containers}
    means = rows.groupby(["method", "lr"])["wst"].mean()
    assert (
        all(list(lines[m]) == pytest.approx(list(means[m])) for m in rows["method"].unique()) and len(lines["ERM"]) == 2
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]


def test_the_contact_sheet_shows_every_pixel_in_place() -> None:
    images = faces(5)
    sheet = plots.contact_sheet(images, columns=2).axes[0].images[0].get_array()
    assert (sheet[-16:, :16] == images[4].permute(1, 2, 0).numpy()).all() and (sheet[-16:, 17:] == 255).all()
    assert len(plots.contact_sheet(images, list("abcde"), columns=3).axes[0].texts) == 5
    for wrong, message in (((images.float(),), "uint8"), ((images, ["a", "b"], 2), "2 titles fit neither the 3 rows")):
        with pytest.raises(AimfairError, match=message):
            plots.contact_sheet(*wrong)


def test_a_jpeg_is_smaller_than_the_png_it_replaces(drawn) -> None:
    image = plots.jpeg(drawn["contact_sheet"])
    assert image.data[:2] == b"\xff\xd8" and image._repr_mimebundle_()[0].keys() == {"image/jpeg"}


def test_a_picture_of_few_colours_is_smaller_and_looks_the_same(drawn) -> None:
    figure = drawn["feature_maps"]
    usual, few = io.BytesIO(), plots.png(figure)
    figure.savefig(usual, format="png", dpi=figure.dpi)
    before, after = (np.asarray(Image.open(f).convert("RGB"), float) for f in (usual, io.BytesIO(few)))
    assert len(few) < 0.6 * len(usual.getvalue()) and before.shape == after.shape
    assert np.abs(before - after).mean() < 1 and np.abs(before - after).max() < 16
    colourful = Figure(figsize=(2, 2))
    colourful.add_axes((0, 0, 1, 1)).imshow(np.random.default_rng(0).random((90, 90, 3)))
    assert Image.open(io.BytesIO(plots.png(colourful))).mode == "RGB"


def test_a_notebook_stores_figures_in_few_colours() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        figure = plots.counts({"train": (1, 2, 3, 4)})
        stored, _ = shell.display_formatter.format(figure)
    finally:
        InteractiveShell.clear_instance()
    assert stored["image/png"] == plots.png(figure)


def test_rates_at_the_ends_of_paths_do_not_lie_on_each_other() -> None:
    rows = [
        {"method": m, "seed": 1, "lr": rate, "wst": 60 + 100 * rate * shift, "acc": 90 + 50 * rate * shift}
        for m, shift in (("a", 1), ("b", -1), ("c", 0.5))
        for rate in (0.001, 0.1)
    ]
    written = [text.get_text() for text in plots.learning_rate_curves(pd.DataFrame(rows)).axes[0].texts]
    assert sorted(written) == ["0.001", "0.1", "0.1", "0.1"]


def test_counts_are_written_unless_too_thin() -> None:
    figure = plots.counts({"train": (1000, 9000, 9000, 1000), "mine": (1, 97, 1, 1)})
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written.count("9,000") == 2 and "97" in written and "1" not in written
    with pytest.raises(AimfairError, match="four group sizes"):
        plots.counts({"train": (1, 2, 3)})


def test_the_chosen_epoch_is_ringed() -> None:
    several = {"a": History([0.6, 0.4], [70.0, 80.0], chosen=1), "b": History([0.5, 0.3], [75.0, 74.0], chosen=0)}
    rings = plots.training_curve(several).axes[1].collections
    assert [ring.get_offsets().tolist()[0] for ring in rings] == [[2, 80], [1, 75]]


def test_eo_forms_shows_both_distances_of_every_row() -> None:
    rows = paper.recomputed(paper.results())
    by_maximum, by_mean = plots.eo_forms(rows).axes[0].collections
    assert np.asarray(by_maximum.get_offsets())[:, 1] == pytest.approx(rows["eo"] - rows["eo_max"])
    assert np.asarray(by_mean.get_offsets())[:, 1] == pytest.approx(rows["eo"] - rows["eo_mean"])


def test_the_noise_floor_is_the_mean_of_the_draws() -> None:
    line = plots.noise_floor({50: [1.0, 3.0], 500: [0.5, 0.7]}, "EO").axes[0].lines[0]
    assert line.get_xydata().tolist() == [[50, 2], [500, 0.6]]


def test_a_seed_without_all_rates_does_not_bend_a_path() -> None:
    frame = sweep("lr", (0.001, 0.01, 0.1))
    lone = frame.iloc[:1].assign(seed=99, acc=0.0, wst=0.0)
    with_it, without = (plots.learning_rate_curves(f).axes[0].lines[0] for f in (pd.concat([frame, lone]), frame))
    assert with_it.get_xydata().tolist() == without.get_xydata().tolist()
    assert not plots.learning_rate_curves(frame[frame["lr"] == frame["seed"].map({0: 0.001}).fillna(0.1)]).axes[0].lines


def test_missing_columns_are_named() -> None:
    with pytest.raises(AimfairError, match=r"lack columns \['lr'\]"):
        plots.learning_rate_curves(sweep("k", (1, 2)))
    with pytest.raises(AimfairError, match="0 rows"):
        plots.group_bars({})


def test_a_module_is_all_that_a_figure_needs(monkeypatch) -> None:
    import importlib
    import pkgutil

    real = pkgutil.iter_modules
    monkeypatch.setattr(pkgutil, "iter_modules", lambda path: [*real(path), SimpleNamespace(name="_no_figure")])
    assert "_no_figure" not in importlib.reload(plots).FIGURES and callable(plots.counts)


def test_the_sheet_has_room_for_its_longest_title() -> None:
    figure = plots.contact_sheet(faces(8), plots.group_names("Smiling", "Young"), columns=2)
    FigureCanvasAgg(figure).draw()
    assert min(text.get_window_extent().x0 for text in figure.axes[0].texts) >= 0


def test_hatched_errors_lie_beyond_the_thresholds() -> None:
    axes = plots.cue_thresholds(0.5, {"lenient": -0.4, "strict": 0.7}).axes[0]
    false_positives, misses = (band.get_paths()[0].get_extents() for band in axes.collections)
    assert false_positives.x0 == pytest.approx(-0.4, abs=0.02) and misses.x1 == pytest.approx(0.7, abs=0.02)


def test_mentions_link_what_differs_between_the_two_targets() -> None:
    panels = plots.mentions(mentioned().head(2), "Smiling", "Male").axes
    women, men = (panel.collections[0].get_segments() for panel in panels)
    assert [(a[0], b[0]) for a, b in women] == [(5, 7), (3, 3)] and [(a[0], b[0]) for a, b in men] == [(0, 0), (3, 3)]
    with pytest.raises(AimfairError, match="four columns"):
        plots.mentions(mentioned().iloc[:, :2])


def test_a_part_is_drawn_at_its_place_with_the_mean_of_its_seeds() -> None:
    rows = in_turn()
    panels = plots.by_part(rows[(rows["method"] == "frozen") & (rows["block"] != "layer1")], BLOCKS, ("wst",)).axes
    x, y = panels[0].containers[0].lines[0].get_data()
    means = rows[rows["method"] == "frozen"].groupby("block")["wst"].mean()
    assert list(x) == [0, 2, 3, 4, 5] and list(y) == pytest.approx([means[b] for b in BLOCKS if b != "layer1"])
    assert [label.get_text() for label in panels[0].get_xticklabels()] == list(BLOCKS)


def test_shares_are_points_on_equal_scales() -> None:
    axes = plots.shares(selected()).axes[0]
    assert [c.get_offsets().tolist() for c in axes.collections][:2] == [[[40.3, 31.0], [40.3, 77.0]], [[77.4, 46.0]]]
    assert axes.get_xlim() == axes.get_ylim()


def test_points_stand_beside_each_other_with_their_intervals() -> None:
    axes = plots.group_points(agreed().iloc[:-1], "agreement (%)").axes[0]  # one group of one series is missing
    first, second = (container.lines[0].get_data() for container in axes.containers)
    assert list(first[1]) == [90, 91, 92, 93] and (first[0] < second[0]).all() and np.isnan(second[1][3])
    ends = np.array(axes.containers[0].lines[2][0].get_segments())[:, :, 1]
    assert ends.tolist() == [[85 + i, 94 + i] for i in range(4)]


def test_a_limit_is_drawn_only_where_a_logarithm_can_show_it() -> None:
    axes = plots.distance_by_size(grown(), "distance", {"real": 0, "drawn": 9}).axes[0]
    real, drawn, limit = axes.lines
    assert list(real.get_ydata()) == pytest.approx([5, 1.25, 0.3125]) and set(limit.get_ydata()) == {9}
    assert list(drawn.get_xdata()) == [20, 80, 320]


def test_differences_are_drawn_seed_by_seed_from_top_to_bottom() -> None:
    figure = plots.paired_differences(apart(), ("wst", "acc"))
    wst, acc = figure.axes
    assert [c.get_offsets()[:, 0].tolist() for c in wst.collections if len(c.get_offsets()) == 6] == [[-1] * 6, [1] * 6]
    assert [label.get_text() for label in wst.get_yticklabels()] == ["one", "other"] and wst.yaxis_inverted()
    assert acc.containers[0].lines[0].get_xdata()[0] == pytest.approx(1.25)


def test_seeds_are_joined_with_themselves_and_a_missing_step_is_left_out() -> None:
    rows = stepped()
    rows = rows[(rows["method"] == "AIM-Fair") & (rows["step"] != "25 prompts")].sample(frac=1, random_state=0)
    axes = plots.paired_steps(rows, STEPS, ("wst",)).axes[0]
    lines = [line.get_data() for line in axes.lines if line.get_marker() == "."]
    for seed, (x, y) in enumerate(lines):
        own = rows[rows["seed"] == seed].set_index("step")["wst"]
        assert list(x) == [0, 2, 3] and list(y) == pytest.approx([own[STEPS[i]] for i in (0, 2, 3)])
    means = axes.containers[0].lines[0].get_ydata()
    assert len(lines) == 5 and list(means) == pytest.approx(
        [rows[rows["step"] == STEPS[i]]["wst"].mean() for i in (0, 2, 3)]
    )
    with pytest.raises(AimfairError, match="step"):
        plots.paired_steps(rows.drop(columns="step"), STEPS)


def test_maps_show_every_face_once_and_fade_the_groups_that_are_not_asked_for() -> None:
    figure = plots.feature_maps({"a": mapped(40), "b": mapped(80), "c": mapped(40)}, shown=(1,))
    assert [sum(len(line.get_xdata()) for line in axes.lines) for axes in figure.axes] == [40, 80, 40]
    lines = figure.axes[0].lines
    assert [line.get_alpha() > 0.5 for line in lines] == [False, True, False, False]
    assert len({(line.get_marker(), line.get_markerfacecolor()) for line in lines}) == 4  # without any colour
    with pytest.raises(AimfairError, match="no maps"):
        plots.feature_maps({})


def test_frozen_blocks_are_drawn_in_their_order_and_a_missing_one_leaves_a_gap() -> None:
    rows = frozen()
    del rows["layer2 frozen"]
    order = list(frozen())
    axes = plots.layer_freezing(rows, order, "nothing frozen", ("wst",)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == order and axes.yaxis_inverted()
    at = {int(c.lines[0].get_ydata()[0]): c.lines[0].get_xdata()[0] for c in axes.containers}
    means = {order.index(name): np.mean([r.wst for r in several]) for name, several in rows.items()}
    assert at == pytest.approx(means) and order.index("layer2 frozen") not in at
    assert axes.lines[0].get_xdata() == pytest.approx([means[len(order) - 1]] * 2)
    with pytest.raises(AimfairError, match="no results of 'nothing frozen'"):
        plots.layer_freezing({k: v for k, v in rows.items() if k != "nothing frozen"}, order, "nothing frozen")


def test_a_threshold_curve_is_the_mean_over_seeds() -> None:
    panels = plots.threshold_curves(moved()).axes
    cut, a, b = panels[0].lines
    assert set(cut.get_xdata()) == {0} and a.get_xydata().tolist() == [[-1, 80], [0, 81], [1, 80]]
    assert (a.get_color(), a.get_linestyle()) != (b.get_color(), b.get_linestyle())
    assert panels[1].lines[2].get_ydata().tolist() == [70, 71, 72]


def test_scores_that_are_all_noise_lie_on_the_line() -> None:
    scores, _ = noisy()
    for axes in plots.score_noise(scores, scores).axes:
        x, y = np.asarray(axes.collections[0].get_offsets()).T
        assert np.array_equal(x, y) and len(x) == 62
    with pytest.raises(AimfairError, match="same tensors"):
        plots.score_noise(scores, {"bias gap": scores["bias gap"]})
