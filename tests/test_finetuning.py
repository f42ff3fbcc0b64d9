"""Fine-tuning of the biased model: all of it, AIM-Fair's tensors, random ones, blocks, the head, adapters."""

from dataclasses import replace
from functools import cache
from itertools import combinations

import pytest
import torch
from toys import same, state, toy_faces

from aimfair import masks, methods, models, repairing, training
from aimfair.environment import AimfairError
from aimfair.methods import lora
from aimfair.methods.blocks import BLOCKS, split_blocks
from aimfair.methods.random_masks import random_elements


def fit(bench, name, **hyper):
    method = methods.get(name)
    return method.fit(bench.seen_by(method), method.hyper(**{"lr": 0.03} | hyper))


def moved(bench, fitted):
    before = bench.biased_model().state_dict()
    return {n for n, v in fitted.model.state_dict().items() if not torch.equal(before[n], v)}


def parameters(model):
    return {name for name, _ in model.named_parameters()}


# ------------------------------------------------------------------------------------------ all tensors, and AIM-Fair's


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_full_fine_tuning_is_the_biased_model_trained_on_the_balanced_faces(bench, batchnorm):
    expected = bench.biased_model()
    schedule = replace(bench.finetuning, lr=0.03, batchnorm=batchnorm)
    training.fit(expected, bench.balanced, bench.validation, schedule, bench.seed + 1)
    assert same(expected.state_dict(), state(fit(bench, "full-finetuning", batchnorm=batchnorm)))


@pytest.mark.parametrize(("name", "hyper"), [("aim-fair", {"k": 62}), ("random-ratio", {"ratio": 1.0})])
def test_all_tensors_selected_is_full_fine_tuning_bit_for_bit(bench, name, hyper):
    assert same(state(fit(bench, "full-finetuning")), state(fit(bench, name, **hyper)))


def test_aim_fair_moves_exactly_its_mask(bench):
    fitted = fit(bench, "aim-fair")
    changed, mask = moved(bench, fitted) & parameters(fitted.model), set(fitted.scores["mask"])
    assert changed <= mask and 48 <= len(mask) <= 55 and len(changed) >= 0.9 * len(mask)


def test_the_mask_of_aim_fair_follows_its_score_its_gradients_and_its_rankings(bench):
    few, found = replace(bench, balanced=bench.balanced.subset(range(8)), gaps=cache(bench.gaps)), []
    for name, given, gaps, rankings in (
        ("aim-fair", {}, ("absolute", "train"), "both"),
        ("aim-fair", {"score": "relative"}, ("relative", "train"), "both"),
        ("aim-fair", {"gradients": "eval"}, ("absolute", "eval"), "both"),
        ("aim-fair", {"rankings": "bias"}, ("absolute", "train"), "bias"),
        ("aim-fair-cosine", {}, ("cosine", "train"), "both"),
    ):
        found.append(fit(few, name, k=45, **given).scores["mask"])
        assert found[-1] == sorted(masks.select(*few.gaps(*gaps), 45, rankings))
    assert all(mask != other for mask, other in combinations(found, 2))


def test_linear_probing_leaves_the_backbone_and_its_statistics_bit_identical(bench):
    assert moved(bench, fit(bench, "linear-probing")) == {"fc.weight", "fc.bias"}
    assert "bn1.running_mean" in moved(bench, fit(bench, "linear-probing", batchnorm="train"))


@pytest.mark.parametrize("name", ["linear-probing", "aim-fair"])
def test_training_the_biased_model_in_place_leaves_the_studys_next_copy_as_it_was(bench, recorded, name):
    stored = recorded.add("erm", bench.seed, right=80).folder / "model.safetensors"
    models.save(bench.biased_model(), stored)
    written, before = stored.read_bytes(), recorded.biased_model(bench.seed).state_dict()
    fitted = fit(replace(bench, biased_model=lambda: recorded.biased_model(bench.seed)), name)
    assert stored.read_bytes() == written and same(before, recorded.biased_model(bench.seed).state_dict())
    assert not same(before, state(fitted))


# ------------------------------------------------------------------------------------------------------ checkpoint rule


@pytest.mark.parametrize(("name", "hyper"), [("full-finetuning", {}), ("random-ratio", {"unit": "element"})])
def test_the_last_epoch_is_kept_where_the_rule_says_so(bench, name, hyper):
    longer = replace(bench, finetuning=replace(bench.finetuning, epochs=3))
    best, last = (fit(longer, name, lr=0.1, **hyper, **rule) for rule in ({}, {"select": "last"}))
    assert best.history.loss == last.history.loss and last.history.chosen == 2
    accuracy = best.history.validation_accuracy
    assert best.history.chosen == accuracy.index(max(accuracy))
    with pytest.raises(AimfairError, match="select must be one of"):
        fit(bench, name, **hyper, select="first")


def test_the_usual_checkpoint_rule_is_no_hyper_parameter_of_a_run_and_every_fine_tuning_has_it():
    aim = methods.get("aim-fair")
    assert aim.hyper(select="validation-accuracy") == aim.hyper() == aim.defaults
    assert aim.hyper(select="last") == {**aim.defaults, "select": "last"}
    rule = methods.CHECKPOINT_RULE.items()
    without = {name for name, method in methods.registry().items() if not method.options.items() >= rule}
    kept = {name for name, method in methods.registry().items() if "batchnorm" in method.defaults} - without
    assert len(kept) == 16 and {"aim-fair", "lora", "freeze-one-block", "random-mask", "weight-interpolation"} <= kept


# --------------------------------------------------------------------------------------------------------- random masks


def test_a_random_mask_has_the_size_of_aim_fairs_and_another_draw_another_mask(bench):
    size = len(fit(bench, "aim-fair", k=50).scores["mask"])
    drawn = [fit(bench, "random-mask", k=50, draw=d).scores["mask"] for d in (0, 1)]
    assert [len(mask) for mask in drawn] == [size, size] and drawn[0] != drawn[1]


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


@pytest.mark.parametrize("mask", [{"fc.wait"}, {"fc.wait": torch.ones(1, dtype=torch.bool)}])
def test_a_mask_that_names_no_tensor_is_refused_in_a_line(bench, mask):
    with pytest.raises(AimfairError, match=r"names tensors that the model does not have: \['fc.wait'\]"):
        repairing.finetune(bench.biased_model(), bench.balanced, bench.validation, bench.finetuning, 1, mask=mask)


# --------------------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("backbone", ["resnet18", "resnet18-slim"])
def test_the_blocks_are_disjoint_and_together_all_62_tensors(backbone):
    model = models.build(backbone, 0)
    parts = split_blocks(parameters(model))
    assert tuple(parts) == BLOCKS and [len(p) for p in parts.values()] == [3, 12, 15, 15, 15, 2]
    assert set().union(*parts.values()) == parameters(model)
    if backbone == "resnet18":  # a quarter of the tensors holds three quarters of the weights
        weights = dict(zip(BLOCKS, (9_536, 147_968, 525_568, 2_099_712, 8_393_728, 513), strict=True))
        shares = {block: masks.scalar_share(model, part) for block, part in parts.items()}
        assert shares == pytest.approx({block: number / 11_177_025 for block, number in weights.items()})


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
    alone = fit(bench, "update-one-block", block="stem", head=False, batchnorm="eval")
    assert moved(bench, alone) == {"conv1.weight", "bn1.weight", "bn1.bias"}
    head = fit(bench, "update-one-block", block="fc", batchnorm="eval")
    assert same(state(fit(bench, "linear-probing")), state(head))


@pytest.mark.parametrize("name", ["update-one-block", "freeze-one-block"])
def test_a_profile_as_long_as_the_training_chooses_the_best_of_all_blocks(bench, name):
    two = replace(bench, finetuning=replace(bench.finetuning, epochs=2))
    best = fit(two, name, profile_epochs=10)
    each = {b: max(fit(two, name, block=b).history.validation_accuracy) for b in BLOCKS}
    assert best.scores["profile"] == each and each[best.scores["block"]] == max(each.values())
    assert same(state(best), state(fit(two, name, block=best.scores["block"])))
    short = fit(two, name, profile_epochs=1)  # the beginning of the full training
    assert short.scores["profile"][short.scores["block"]] == short.history.validation_accuracy[0]
    assert len(short.history.validation_accuracy) == 2


# ----------------------------------------------------------------------------------------------------------------- LoRA

SIZES = {"resnet18-slim": 32, "vit-slim": 64}


def images(backbone, n=4):
    size = SIZES[backbone]
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def adapted(backbone, rank=4, targets="auto", alpha=None):
    return lora.adapt(models.build(backbone, 1).eval(), rank, alpha or 2.0 * rank, targets, seed=2)


@pytest.mark.parametrize("backbone", SIZES)
def test_adapters_change_nothing_at_step_0_and_what_they_learn_merges_into_a_plain_model(bench, backbone):
    plain, model, x = models.build(backbone, 1), adapted(backbone), images(backbone)
    assert torch.equal(model.eval()(x), plain.eval()(x))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {n: p.clone() for n, p in model.state_dict().items() if n not in trainable}
    train, schedule = toy_faces((16,) * 4, 1, SIZES[backbone]), replace(bench.finetuning, lr=0.1, batchnorm="eval")
    training.fit(model, train, train, schedule, seed=1, trainable=trainable)
    now = model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in frozen.items())  # statistics of batch norm, too
    assert all(now[n].abs().max() > 0 for n in trainable if "lora_B" in n)
    apart = model.eval()(x)
    merged = lora.merge(model)
    assert type(merged) is type(plain) and list(merged.state_dict()) == list(plain.state_dict())
    assert torch.allclose(merged.eval()(x), apart, atol=1e-5) and not torch.allclose(apart, plain(x), atol=1e-3)


def test_lora_changes_exactly_its_layers_and_the_head(bench):
    fitted = fit(bench, "lora", lr=0.1, batchnorm="eval")
    expected = {f"{name}.weight" for name in lora.layers(fitted.model)} | {"fc.weight", "fc.bias"}
    assert moved(bench, fitted) == expected and len(expected) == 20 + 2


def test_adapters_of_alpha_zero_leave_linear_probing_bit_for_bit(bench):
    tuned = fit(bench, "lora", lr=0.1, batchnorm="eval", alpha=0.0)
    assert same(state(fit(bench, "linear-probing", lr=0.1)), state(tuned))


def test_the_vit_of_the_paper_trains_147456_numbers_and_its_head():
    model = lora.adapt(models.build("vit-s-32", 0), 8, 16.0, "auto", seed=0)
    sizes = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    assert sum(size for name, size in sizes.items() if "lora_" in name) == 147_456
    assert sum(size for name, size in sizes.items() if "lora_" not in name) == 385


@pytest.mark.parametrize(("rank", "alpha"), [(4, 8.0), (4, 1.0), (2, 6.0), (96, 192.0)])
def test_a_merged_weight_is_the_old_one_plus_alpha_over_rank_times_the_product(rank, alpha):
    model, plain = adapted("vit-slim", rank, alpha=alpha), models.build("vit-slim", 1)
    layer = model.get_base_model().blocks[3].attn.qkv
    a, b = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
    torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(3))
    expected = plain.blocks[3].attn.qkv.weight + alpha / rank * b @ a
    assert a.shape == (rank, 96) and torch.allclose(lora.merge(model).blocks[3].attn.qkv.weight, expected, atol=1e-4)


def test_layers_are_chosen_by_the_network_or_by_name():
    vit, resnet = models.build("vit-slim", 0), models.build("resnet18-slim", 0)
    assert lora.layers(vit) == [f"blocks.{i}.attn.qkv" for i in range(6)]
    assert len(lora.layers(vit, "attn.qkv, attn.proj,mlp.fc1,mlp.fc2")) == 24
    assert len(lora.layers(resnet)) == 20 and "fc" not in lora.layers(resnet)
    assert lora.layers(resnet, "conv1") == ["conv1", *(f"layer{i}.{j}.conv1" for i in range(1, 5) for j in (0, 1))]
