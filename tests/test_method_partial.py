"""Random shares, one block updated, one block frozen: what moves, what stays, and how a block is chosen."""

from dataclasses import replace

import pytest
import torch

from aimfair import masks, methods, models
from aimfair.environment import AimfairError
from aimfair.methods.blocks import BLOCKS, split_blocks
from aimfair.methods.random_masks import random_elements


def fit(bench, name, **hyper):
    method = methods.get(name)
    return method.fit(bench.seen_by(method), method.hyper(lr=0.03, **hyper))


def moved(bench, fitted):
    before = bench.biased_model().state_dict()
    return {n for n, v in fitted.model.state_dict().items() if not torch.equal(before[n], v)}


def parameters(model):
    return {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("backbone", ["resnet18", "resnet18-slim"])
def test_the_blocks_are_disjoint_and_together_all_62_tensors(backbone):
    names = parameters(models.build(backbone, 0))
    parts = split_blocks(names)
    assert tuple(parts) == BLOCKS and [len(p) for p in parts.values()] == [3, 12, 15, 15, 15, 2]
    assert sum(map(len, parts.values())) == 62 and set().union(*parts.values()) == names


def test_a_quarter_of_the_tensors_holds_three_quarters_of_the_weights():
    model = models.build("resnet18", 0)
    weights = dict(zip(BLOCKS, (9_408 + 128, 147_968, 525_568, 2_099_712, 8_393_728, 513), strict=True))
    shares = {b: masks.scalar_share(model, p) for b, p in split_blocks(parameters(model)).items()}
    assert sum(weights.values()) == sum(p.numel() for p in model.parameters()) == 11_177_025
    assert shares == pytest.approx({block: number / 11_177_025 for block, number in weights.items()})


def test_a_network_of_other_blocks_is_refused():
    with pytest.raises(AimfairError, match="patch_embed.weight is in none of the blocks"):
        split_blocks(["fc.weight", "patch_embed.weight"])


@pytest.mark.parametrize(("ratio", "tensors"), [(0.40, 25), (0.55, 34), (0.70, 43), (0.85, 53)])
def test_the_papers_ratios_in_tensors(bench, ratio, tensors):
    fitted = fit(bench, "random-ratio", ratio=ratio)
    mask = set(fitted.scores["mask"])
    assert len(mask) == tensors and 0 < fitted.scores["scalar_share"] < 1
    assert moved(bench, fitted) & parameters(fitted.model) <= mask


def test_a_mask_depends_on_seed_and_draw_alone(bench):
    drawn = [fit(bench, "random-ratio", ratio=0.4, draw=d).scores["mask"] for d in (0, 0, 1)]
    other = fit(replace(bench, seed=2), "random-ratio", ratio=0.4).scores["mask"]
    assert drawn[0] == drawn[1] != drawn[2] and other != drawn[0]


def test_everything_drawn_is_full_fine_tuning_bit_for_bit(bench):
    full = fit(bench, "full-finetuning").model.state_dict()
    drawn = fit(bench, "random-ratio", ratio=1.0).model.state_dict()
    assert all(torch.equal(full[n], drawn[n]) for n in full)


def test_all_elements_drawn_is_full_fine_tuning_up_to_rounding(bench):
    full = fit(bench, "full-finetuning").model.state_dict()
    drawn = fit(bench, "random-ratio", ratio=1.0, unit="element").model.state_dict()
    assert all(torch.allclose(full[n].float(), drawn[n].float(), rtol=1e-2, atol=1e-3) for n in full)


@pytest.mark.parametrize("unit", ["tensor", "element"])
def test_nothing_drawn_moves_nothing_but_running_statistics(bench, unit):
    drifting = moved(bench, fit(bench, "random-ratio", ratio=0.0, unit=unit))
    assert drifting and all("running" in name or "num_batches" in name for name in drifting)
    assert not moved(bench, fit(bench, "random-ratio", ratio=0.0, unit=unit, batchnorm="eval"))


def test_single_weights_outside_the_mask_stay_bit_identical(bench):
    before = bench.biased_model()
    chosen = random_elements(before, 0.55, seed=1000 * bench.seed)
    fitted = fit(bench, "random-ratio", ratio=0.55, unit="element")
    assert fitted.scores["scalar_share"] == pytest.approx(0.55, abs=1e-5)
    old, new = dict(before.named_parameters()), dict(fitted.model.named_parameters())
    assert all(torch.equal(old[n][~chosen[n]], new[n][~chosen[n]]) for n in chosen)
    changed = sum(int((old[n] != new[n]).sum()) for n in chosen)
    assert changed > 0.99 * sum(int(m.sum()) for m in chosen.values())


@pytest.mark.parametrize("hyper", [{"ratio": 1.2}, {"ratio": -0.1}, {"unit": "layer"}])
def test_impossible_selections_are_named(bench, hyper):
    with pytest.raises(AimfairError, match="ratio must be 0 to 1 and unit tensor or element"):
        fit(bench, "random-ratio", **hyper)


@pytest.mark.parametrize("block", BLOCKS)
def test_updating_moves_the_block_and_the_head_freezing_all_but_the_block(bench, block):
    names = parameters(bench.biased_model())
    parts = split_blocks(names)
    updated = fit(bench, "update-one-block", block=block)
    assert moved(bench, updated) & names == parts[block] | parts["fc"] == set(updated.scores["mask"])
    assert updated.scores["block"] == block and "profile" not in updated.scores
    frozen = moved(bench, fit(bench, "freeze-one-block", block=block)) & names
    assert not frozen & parts[block] and len(frozen) >= 0.9 * (62 - len(parts[block]))


def test_without_the_head_only_the_block_moves_and_the_head_alone_is_linear_probing(bench):
    assert moved(bench, fit(bench, "update-one-block", block="stem", head=False, batchnorm="eval")) == {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
    }
    probe = fit(bench, "linear-probing").model.state_dict()
    head = fit(bench, "update-one-block", block="fc", batchnorm="eval").model.state_dict()
    assert all(torch.equal(probe[n], head[n]) for n in probe)


@pytest.mark.parametrize("name", ["update-one-block", "freeze-one-block"])
def test_a_profile_as_long_as_the_training_chooses_the_best_of_all_blocks(bench, name):
    two = replace(bench, finetuning=replace(bench.finetuning, epochs=2))
    best = fit(two, name, profile_epochs=10)
    each = {b: max(fit(two, name, block=b).history.validation_accuracy) for b in BLOCKS}
    assert best.scores["profile"] == each and each[best.scores["block"]] == max(each.values())
    again = fit(two, name, block=best.scores["block"]).model.state_dict()
    assert all(torch.equal(v, again[n]) for n, v in best.model.state_dict().items())


def test_a_short_profile_is_the_beginning_of_the_full_training(bench):
    two = replace(bench, finetuning=replace(bench.finetuning, epochs=2))
    fitted = fit(two, "update-one-block", profile_epochs=1)
    block = fitted.scores["block"]
    assert fitted.scores["profile"][block] == fitted.history.validation_accuracy[0]
    assert len(fitted.history.validation_accuracy) == 2


def test_an_unknown_block_is_answered_with_the_known_ones(bench):
    with pytest.raises(AimfairError, match="block must be best or one of stem, layer1, .*, fc, got 'layer5'"):
        fit(bench, "freeze-one-block", block="layer5")
