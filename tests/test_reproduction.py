"""The rule by which the paper is judged, branch by branch; and that what is judged is what the runs and the paper say."""

import numpy as np
import pandas as pd
import pytest
from small_grid import SMALL, changes, draw_pool, machine

from aimfair import cli, methods, paper, study
from aimfair.metrics import CELLS
from aimfair.paper import comparisons, reading
from aimfair.paper import tables as paper_tables
from aimfair.paper.comparisons import INCONSISTENT, MISSING, NOISE, NOTHING, OPPOSITE, ZERO, PaperClaim
from aimfair.paper.reading import EARLY, LATE, Reading
from aimfair.stats import Difference
from aimfair.study import grid, profiles, tables
from aimfair.study.grid import experiments
from beyond import reproduction

ERM, FULL, AIM = "Baseline (ERM)", "Full fine-tuning", "AIM-Fair"


def ours(low: float, high: float) -> Difference:
    return Difference((low + high) / 2, low, high, 0.01, 10)


# The rule


@pytest.mark.parametrize(
    ("theirs", "noise", "difference", "consistent", "verdict", "why"),
    [
        (2, 1, ours(0.1, 3), True, "holds", "same sign"),
        (-2, 1, ours(-3, -0.1), True, "holds", "same sign"),
        (2, 1, ours(-3, -0.1), True, "contradicted", "opposite sign"),
        (-2, 1, ours(0.1, 3), True, "contradicted", "opposite sign"),
        (2, 1, ours(-0.1, 3), True, "undecided", ZERO),
        (2, 1, ours(0, 3), True, "undecided", ZERO),
        (2, 1, None, True, "undecided", MISSING),
        (1, 1, ours(0.1, 3), True, "undecided", NOISE),
        (-0.5, 1, None, True, "undecided", NOISE),
        (9, 1, ours(0.1, 3), False, "undecided", INCONSISTENT),
        (0, 1, None, False, "undecided", INCONSISTENT),
    ],
)
def test_the_rule_in_all_its_branches(theirs, noise, difference, consistent, verdict, why):
    assert comparisons.judge(theirs, noise, difference, consistent) == (verdict, why)


@pytest.mark.parametrize(
    ("kinds", "verdict", "counts"),
    [
        (["holds"] * 3, "holds", "3 stand"),
        (["holds", "contradicted", MISSING], "contradicted", "1 stand, 1 contradicted, 1 not run"),
        (["holds", MISSING], "undecided", "1 stand, 1 not run"),
        (["holds", ZERO], "undecided", "1 stand, 1 undecided"),
        (
            ["holds", NOISE, INCONSISTENT, OPPOSITE],
            "holds",
            "1 stand, 1 within the paper's noise, 1 misprinted, 1 against its own table",
        ),
        ([NOISE, NOISE], "undecided", "2 within the paper's noise"),
        ([], "undecided", NOTHING),
    ],
)
def test_a_claim_of_several_comparisons(kinds, verdict, counts):
    parts = [(kind, "") if kind in ("holds", "contradicted") else ("undecided", kind) for kind in kinds]
    assert comparisons.judge_together(parts) == (verdict, counts)


# The paper's own noise


def test_standard_errors_by_hand():
    error = comparisons.standard_error
    row, without_cells = paper.row(3, "AIM-Fair"), paper.row(1, "DiGA")
    # 100 sqrt(p (1 - p) / n) of .842 of 3094 and .9025 of 6893
    assert error(row, "wst") == pytest.approx(0.656, abs=1e-3)
    assert error(row, "eo") == pytest.approx(np.hypot(0.656, 0.357), abs=1e-3)
    assert error(row, "acc") < 100 * np.sqrt(0.8902 * 0.1098 / 19962)  # groups differ
    cells = zip((0.8990, 0.9120, 0.9284, 0.8779), (5354, 4621, 6893, 3094), strict=True)
    in_table_8 = 0.5 * np.sqrt(sum(100**2 * p * (1 - p) / n for p, n in cells))
    assert error(paper.row(8, "Selective fine-tuning"), "eo") == pytest.approx(in_table_8)
    assert error(without_cells, "acc") == pytest.approx(100 * np.sqrt(0.884 * 0.116 / 19962))
    assert error(without_cells, "wst") == pytest.approx(100 * np.sqrt(0.819 * 0.181 / 3094))
    assert error(without_cells, "eo") == pytest.approx(np.sqrt(2) * error(without_cells, "wst"))


def test_the_noise_of_rows_from_two_pipelines_is_what_their_baselines_differ_by():
    diga, erm, aim = (paper.row(1, name) for name in ("DiGA", "ERM", "AIM-Fair"))
    assert comparisons.pipelines_apart("Smiling", "Male", "acc") == pytest.approx(89.23 - 88.20)
    assert comparisons.noise(aim, diga, "acc") == pytest.approx(1.03)
    assert comparisons.noise(diga, erm, "acc") < 0.4  # both quoted from the same source
    assert comparisons.pipelines_apart("Young", "Male", "wst") == pytest.approx(78.72 - 71.50)  # the larger of two
    chance = comparisons.noise(paper.row(3, "AIM-Fair"), paper.row(3, "Full fine-tuning"), "wst")
    assert chance == pytest.approx(np.hypot(0.656, 0.679), abs=1e-2)


# Readings of studies made by hand


def a_reading(values, profile="demo") -> Reading:
    """A study with these values of every metric, (table, setting, row) -> one per seed; the paper's blocks are real."""
    p = profiles.load(profile)
    parts = paper_tables.all_of(p)
    chosen = {}
    for key, numbers in values.items():
        seeds = pd.Index([100 * (i + 1) for i in range(len(numbers))], name="seed")
        chosen[key] = pd.DataFrame({m: numbers for m in ("acc", "wst", "eo_max", "eo_mean", "tensors")}, seeds)
    blocks = [block for e in parts.values() for block in reading._blocks(e, p)]
    return Reading(p.profile, p, chosen, pd.DataFrame({"runs": 1}, list(parts)), blocks)


def at(table, row, setting="Smiling / Male"):
    return (f"Table {table}", setting, row)


def test_every_printed_row_has_a_place_in_the_demo_study_or_is_of_another_task():
    placed = [row for block in a_reading({}).blocks for row in block.values()]
    frame = paper.results()
    left_out = frame[(frame["table"].isin([3, 4])) & (frame["dataset"] == "UTKFace")]
    assert len(placed) == len(frame) - len(left_out)
    assert {row["task"] for row in placed if row["table"] == 10} == {"Female / White, here Smiling / Male"}
    assert {row["task"] for row in placed if row["table"] == 2} == {f"{n}% of the faces" for n in (50, 25, 10)}
    for profile, tasks in (
        ("utkface", {3, 4, 10}),
        ("celeba-young-male", {1}),
        ("celeba-smiling-young", {1, 3, 4, 5, 8}),
    ):
        assert {row["table"] for block in a_reading({}, profile).blocks for row in block.values()} == tasks


def test_the_places_are_rows_of_our_tables_but_for_what_the_library_does_not_run():
    known = paper_tables.all_of(profiles.load("demo"))
    titles = {(name, s, row.title) for name, e in known.items() for s in e.settings for row in e.within(s)}
    placed = {(f"Table {r['table']}", r["where"], t) for block in a_reading({}).blocks for t, r in block.items()}
    never = {f"AIM-Fair, {ratio}" for ratio in ("2:8", "3:7", "4:6")}
    never |= {"AIM-Fair, 1.5 times as many", "AIM-Fair, twice as many"}
    absent = {title for _, _, title in placed - titles}
    assert reading.BEST_SHARE in absent and absent - {reading.BEST_SHARE} <= never


def test_comparisons_are_of_every_row_with_the_baseline_and_of_the_proposed_one_with_every_row():
    by_table = {}
    for block in a_reading({}).blocks:
        by_table.setdefault(next(iter(block.values()))["table"], comparisons.pairs(block))
    assert len(by_table[3]) == 6 + 5 and (AIM, FULL) in by_table[3] and ("Linear probing", ERM) in by_table[3]
    assert by_table[7] == [
        ("AIM-Fair, as many", f"AIM-Fair, {n}") for n in ("half as many", "1.5 times as many", "twice as many")
    ]
    assert by_table[9] == [("LTGC-style mixing", ERM), (AIM, ERM), (AIM, "LTGC-style mixing")]
    assert by_table[5][0] == ("25 contextual prompts", "Plain prompt") and len(by_table[5]) == 3 + 2
    assert ("AIM-Fair, 1:9", "AIM-Fair, 4:6") in by_table[6] and ("AIM-Fair, 4:6", FULL) in by_table[6]


def test_a_comparison_is_the_printed_difference_beside_the_paired_one():
    up = {at(3, ERM): [70.0, 71.0, 72.0], at(3, AIM): [75.1, 76.0, 76.9], at(3, FULL): [75.0, 76.1]}
    frame = comparisons.comparisons(a_reading(up)).set_index(["table", "task", "row", "against", "metric"])
    line = frame.loc["Table 3", "Smiling / Male", AIM, ERM, "wst"]
    assert line["paper"] == pytest.approx(84.20 - 71.52) and line["ours"] == pytest.approx(5.0) and line["seeds"] == 3
    assert line["low"] < 5 < line["high"] and line["verdict"] == "holds"
    assert frame.loc["Table 3", "Smiling / Male", AIM, ERM, "eo"]["verdict"] == "contradicted"  # ours grew by 5 as well
    assert frame.loc["Table 3", "Smiling / Male", AIM, ERM, "acc"]["why"] == NOISE  # 89.02 against 89.23
    assert frame.loc["Table 3", "Smiling / Male", AIM, FULL, "wst"][["why", "seeds"]].tolist() == [MISSING, 2]
    assert frame.loc["Table 3", "Smiling / Young", AIM, ERM, "wst"]["why"] == MISSING
    misprinted = frame.loc["Table 7"].reset_index().query("against == 'AIM-Fair, twice as many'")
    assert set(misprinted["why"]) == {INCONSISTENT} and len(misprinted) == 3
    form = a_reading({at(8, ERM): [20.0] * 3})
    form.chosen[at(8, ERM)]["eo_mean"] = 83.0  # Table 8 prints the mean form
    assert form.values("Table 8", "Smiling / Male", ERM, "eo").tolist() == [83] * 3
    counts = reproduction.tally(frame.reset_index())
    assert counts.loc[("Table 3", "demo"), ["stand", "contradicted"]].tolist() == [1, 1]
    assert counts.to_numpy().sum() == len(frame)


def test_orders_are_rank_correlations_with_the_paper():
    rows = [ERM, "Data supplementation", "Data repairing", "Linear probing", FULL]
    same = {at(3, row): [60.0 + i, 61.0 + i, 62.0 + i] for i, row in enumerate(rows)}  # the paper's order of WST
    frame = reproduction.orders(a_reading(same)).set_index(["table", "task", "metric"])
    line, eo = (frame.loc["Table 3", "Smiling / Male", metric] for metric in ("wst", "eo"))
    assert line[["rho", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert line[["rows", "of", "seeds"]].tolist() == [5, 7, 3]
    assert eo["rho"] == pytest.approx(-1)  # ours grows where the paper's falls
    assert np.isnan(frame.loc["Table 3", "Smiling / Young", "wst"]["rho"])
    few = {at(3, row): [60.0 + i] * 3 for i, row in enumerate(rows[:3])}
    assert reproduction.orders(a_reading(few))["rho"].isna().all()
    assert reproduction.show_orders(reproduction.orders(a_reading(same)))["WST"].tolist() == [
        "+1.00 [+1.00,\u00a0+1.00]"
    ]


# The claims


def test_claims_name_rows_and_tables_that_there_are():
    p = profiles.load("demo")
    titles = {e.name: {row.title for row in e.rows} for e in paper_tables.all_of(p).values()}
    titles["Figure 8"] = {EARLY, LATE}
    for block in a_reading({}).blocks:
        titles[f"Table {next(iter(block.values()))['table']}"] |= set(block)
    for claim in comparisons.paper_claims():
        for row, against, *_ in claim.parts:
            assert all({row, against} <= titles[where] for where in claim.where), (claim.text, row)


def test_a_claim_is_judged_in_every_task_of_a_study():
    fair = PaperClaim("AIM-Fair's worst group is higher", ("Table 3",), ((AIM, ERM, "wst", 1, 0.0),))
    one = {at(3, ERM): [70.0, 71.0, 72.0], at(3, AIM): [75.1, 76.0, 76.9]}
    assert comparisons.judge_claim(fair, a_reading(one)) == ("undecided", "1 stand, 1 not run")
    young = "Smiling / Young"
    both = one | {at(3, ERM, young): [80.0, 81.0, 82.0], at(3, AIM, young): [75.1, 76.0, 76.9]}
    assert comparisons.judge_claim(fair, a_reading(both)) == ("contradicted", "1 stand, 1 contradicted; Holm p 0.500")
    assert comparisons.judge_claim(fair, a_reading({}, "celeba-young-male")) == ("undecided", NOTHING)


def test_the_p_value_beside_a_contradiction_is_adjusted_for_all_judged_parts():
    ten = np.linspace(70, 71, 10)
    rivals = {"Data supplementation": -3.0, "Data repairing": 2.0}  # AIM-Fair is above the first and below the second
    values = {at(3, AIM): ten} | {at(3, row): ten + shift for row, shift in rivals.items()}
    claim = PaperClaim("ahead", ("Table 3",), tuple((AIM, row, "wst", 1, 0.0) for row in rivals))
    assert comparisons.judge_claim(claim, a_reading(values))[1].endswith(f"; Holm p {2 * 2 / 1024:.3f}")
    alone = PaperClaim("ahead", ("Table 3",), claim.parts[1:])
    assert comparisons.judge_claim(alone, a_reading(values))[1] == "1 contradicted, 1 not run; Holm p 0.002"


def test_the_worst_group_can_be_taken_of_the_mean_cells():
    there = a_reading({at(3, ERM): [70.0, 80.0], at(3, AIM): [75.0, 75.0]})
    for key, first in ((at(3, ERM), [60.0, 80.0]), (at(3, AIM), [66.0, 76.0])):
        there.chosen[key][list(CELLS)] = 90.0
        there.chosen[key][CELLS[0]] = first
        there.chosen[key][CELLS[1]] = first[::-1]
    order = reproduction.of_mean_groups(there, *at(3, AIM)[:2], AIM, ERM)
    assert order == pytest.approx(71 - 70)  # not the mean of the minima, 66 - 60


def test_a_margin_is_added_on_both_sides_and_the_printed_sign_must_be_the_claimed_one():
    values = {at(3, ERM): [80.0, 81.0, 82.0], at(3, AIM): [79.5, 80.6, 81.4], at(3, FULL): [90.0, 91.0, 92.0]}
    made = a_reading(values)
    block = next(b for b in made.blocks if comparisons.table_of(b) == "Table 3" and b[ERM]["task"] == "Smiling / Male")
    kept = comparisons.compared(made, block, AIM, ERM, "acc", margin=1.0, sign=1)
    assert kept["verdict"] == "holds" and kept["ours"] == pytest.approx(-0.5) and kept["paper"] == pytest.approx(-0.21)
    lost = comparisons.compared(made, block, AIM, ERM, "acc", margin=0.6, sign=1)
    assert lost["verdict"] == "undecided" and lost["high"] < 0  # .6 is within the interval
    wrong = comparisons.compared(made, block, FULL, ERM, "acc", sign=1)
    assert wrong["paper"] == pytest.approx(-0.46) and wrong["why"] == OPPOSITE


def test_claims_about_figures_have_a_sign_only():
    early = next(claim for claim in comparisons.paper_claims() if claim.where == ("Figure 8",))
    own = "Smiling / Male"
    where = {("Figure 8", own, EARLY): [30, 31, 29], ("Figure 8", own, LATE): [20, 19, 20]}
    assert comparisons.judge_claim(early, a_reading(where)) == ("holds", "1 stand")
    turned = dict(zip(where, reversed(where.values()), strict=True))
    assert comparisons.judge_claim(early, a_reading(turned))[0] == "contradicted"
    frozen = next(claim for claim in comparisons.paper_claims() if claim.where == ("Figure 2",))
    assert comparisons.judge_claim(frozen, a_reading({}))[1] == "8 not run"
    assert comparisons.judge_claim(frozen, a_reading({}, "utkface"))[1] == NOTHING  # the figure is of Smiling / Male


# For reading


def test_numbers_and_differences_in_words():
    up = {at(3, ERM): [70.0, 71.0, 72.0], at(3, AIM): [75.1, 76.0, 76.9], at(3, "Linear probing"): [50.0]}
    made = a_reading(up)
    shown = reproduction.numbers([made], 3).query("task == 'Smiling / Male'").set_index("row")
    assert shown.loc[AIM, "WST, paper"] == "84.2" and shown.loc[AIM, "WST, here"].startswith("76.0 [")
    assert shown.loc["Linear probing", ["seeds", "ACC, here"]].tolist() == [1, "50.0"]
    assert shown.loc[FULL, ["seeds", "EO (max), here"]].tolist() == [0, "not run"]
    every = comparisons.comparisons(made)
    (line,) = reproduction.differences(every[every["table"] == "Table 3"]).to_dict("records")
    assert line["difference"] == "AIM-Fair − Baseline (ERM)" and line["WST"].startswith("+12.7 → +5.0 [")
    assert [line[m][-1] for m in ("ACC", "WST", "EO")] == ["~", "✓", "✗"]
    assert (
        reproduction.count(every[every["table"] == "Table 9"])
        == "9 comparisons: 6 not run, 3 within the paper's noise."
    )
    assert reproduction.count(every.iloc[:0]) == "No comparison of this kind."
    lacking = reproduction.without_runs([made]).set_index("table")["rows without any run"]
    assert "AIM-Fair (Smiling / Young)" in lacking["Table 3"] and "AIM-Fair (Smiling / Male)" not in lacking["Table 3"]
    lines = reproduction.html(shown.reset_index()).splitlines()
    assert len(lines) <= len(shown) + 8 and sum("<tr" in line for line in lines) == len(shown) + 1
    assert reproduction.html(shown).count("<td") == shown.size
    table = comparisons.show_claims([made, a_reading({}, "utkface")], "#repro-{}")
    assert len(table) == len(comparisons.paper_claims()) and table["paper"][0] == '<a href="#repro-table-3">Table 3</a>'
    assert table["utkface"].str.startswith("–").sum() >= 5


# From real runs


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A study of half a second a run with Figure 6 and Table 11's kind of rows computed for three seeds, no search."""
    pool = draw_pool(tmp_path_factory.mktemp("pool"))
    changed = {**changes(pool), "seeds": 3}
    return changed, machine(tmp_path_factory.mktemp("runs"))


def test_what_is_read_is_what_the_grid_has(given, tmp_path, capsys):
    changed, here = given
    p = profiles.load("smoke", **changed)
    table = paper_tables.all_of(p)["Table 3"]
    seeds = [100, 200, 300]
    cells = [c for c in experiments.cells(table, "smoke", changed, seeds) if c.setting == "Smiling / Male"]
    some = [c for c in cells if c.method in ("erm", "synthetic-only") or (c.method == "aim-fair" and c.seed == 100)]
    assert grid.compute(grid.graph(grid.identified(some, here), here), here) == []

    made = reading.read("smoke", changed, here)
    opened = study.open_study("smoke", changes=changed, device="cpu", runs_root=here.runs_root)
    erm = made.values("Table 3", "Smiling / Male", ERM, "acc")
    assert erm.to_dict() == {seed: opened.run("erm", seed).report().acc for seed in seeds}
    tried = [opened.run("aim-fair", 100, lr=rate) for rate in methods.LEARNING_RATES]
    best = tables.choose(tables.frame(tried)).set_index("seed")["wst"]
    assert made.values("Table 3", "Smiling / Male", AIM, "wst").to_dict() == best.to_dict()
    assert made.values("Table 3", "Smiling / Male", FULL, "wst").empty
    picked = made.values("Figure 8", "Smiling / Male", EARLY, "tensors")
    assert picked.index.tolist() == [100] and 0 < picked[100] <= 30
    frame = comparisons.comparisons(made)
    done = frame.query("table == 'Table 3' and row == 'Trained on synthetic only' and task == 'Smiling / Male'")
    assert done["seeds"].tolist() == [3] * 3 and done["ours"].notna().all()
    assert set(frame.query("row == @AIM and table == 'Table 3'")["why"]) <= {MISSING, NOISE}

    # and `aimfair grid status` counts the same runs as missing
    options = ["--profile", "smoke", "--device", "cpu", "--runs", here.runs_root]
    options += [text for name, value in changed.items() for text in ("-p", f"{name}={value}")]
    capsys.readouterr()  # what the runs said
    assert cli.main(["grid", "status", *options]) == 0
    lines = capsys.readouterr().out.splitlines()[1:-1]
    told = {" ".join(line.split()[:2]): [int(n) for n in line.split()[-4:-1]] for line in lines}
    assert told == {name: row.tolist() for name, row in made.inventory[["runs", "there", "missing"]].iterrows()}
    assert made.inventory.loc["Table 3", "there"] == 3 + 3 + 5

    assert cli.main(["grid", "report", *options, "--out", str(tmp_path / "all.csv")]) == 0
    written = pd.read_csv(tmp_path / "all.csv")
    assert len(written) == len(frame) and written["why"].tolist() == frame["why"].tolist()
    assert cli.main(["grid", "report", *options]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "| claim | paper | smoke |" and len(said) == 3 + len(comparisons.paper_claims())


def test_the_best_share_is_the_best_of_all_shares_and_needs_them_all():
    p = profiles.load("demo")
    table = paper_tables.all_of(p)["Table 4"]
    titles = [row.title for row in table.rows if row.method == "random-ratio"]
    rows = [
        {"setting": "s", "method": title, "seed": seed, "selection": (i * 7) % 5, "acc": float(i)}
        for seed in (100, 200)
        for i, title in enumerate(titles)
    ]
    without_one = pd.DataFrame(rows[:-1])  # seed 200 lacks a share, and shows the one that 100 chose
    best = reading._best_share(table, without_one)
    assert best["seed"].tolist() == [100, 200] and best["acc"].tolist() == [2.0] * 2
    assert set(best["method"]) == {reading.BEST_SHARE}
    assert reading._best_share(table, pd.DataFrame(rows[:-5])).empty


def test_fields_that_a_notebook_was_given_are_told_from_those_of_the_file():
    p = profiles.load("smoke", **SMALL)
    assert reproduction.changes_of(p, "smoke") == SMALL and reproduction.changes_of(profiles.load("demo"), "demo") == {}
