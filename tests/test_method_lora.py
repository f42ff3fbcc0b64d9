"""LoRA: nothing changes at step 0, only adapters and head learn, and what was learned merges into a plain model."""

from dataclasses import replace

import pytest
import torch
from toys import toy_faces

from aimfair import methods, models
from aimfair.environment import AimfairError
from aimfair.methods import lora
from aimfair.training import fit

SIZES = {"resnet18-slim": 32, "vit-slim": 64}


def images(backbone, n=4):
    size = SIZES[backbone]
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def adapted(backbone, rank=4, targets="auto", alpha=None):
    return lora.adapt(models.build(backbone, 1).eval(), rank, alpha or 2.0 * rank, targets, seed=2)


@pytest.mark.parametrize("backbone", SIZES)
def test_at_step_0_the_output_is_the_models(backbone):
    x = images(backbone)
    assert torch.equal(adapted(backbone).eval()(x), models.build(backbone, 1).eval()(x))


@pytest.mark.parametrize("backbone", SIZES)
def test_what_was_trained_merges_into_a_plain_model_of_the_same_tensors(bench, backbone):
    plain, model = models.build(backbone, 1), adapted(backbone)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {n: p.clone() for n, p in model.state_dict().items() if n not in trainable}
    train, schedule = toy_faces((16,) * 4, 1, SIZES[backbone]), replace(bench.finetuning, lr=0.1, batchnorm="eval")
    fit(model, train, train, schedule, seed=1, trainable=trainable)
    now = model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in frozen.items())  # statistics of batch norm, too
    assert all(now[n].abs().max() > 0 for n in trainable if "lora_B" in n)
    apart = model.eval()(images(backbone))
    merged = lora.merge(model)
    assert type(merged) is type(plain) and merged.state_dict().keys() == plain.state_dict().keys()
    assert [n for n, _ in merged.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert torch.allclose(merged.eval()(images(backbone)), apart, atol=1e-5)
    assert not torch.allclose(apart, plain.eval()(images(backbone)), atol=1e-3)


def test_the_method_changes_exactly_its_layers_and_the_head(bench):
    method, before = methods.get("lora"), bench.biased_model().state_dict()
    fitted = method.fit(bench.seen_by(method), method.hyper(lr=0.1, batchnorm="eval"))
    changed = {name for name, value in fitted.model.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {f"{name}.weight" for name in lora.layers(fitted.model)} | {"fc.weight", "fc.bias"}
    assert len(changed) == 20 + 2


def test_the_vit_of_the_paper_trains_147456_numbers_and_its_head():
    model = lora.adapt(models.build("vit-s-32", 0), 8, 16.0, "auto", seed=0)
    sizes = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    assert sum(size for name, size in sizes.items() if "lora_" in name) == 147_456
    assert sum(size for name, size in sizes.items() if "lora_" not in name) == 385


def test_full_rank_can_represent_any_update():
    model, plain = adapted("vit-slim", rank=96), models.build("vit-slim", 1)
    weight = plain.blocks[3].attn.qkv.weight.detach()
    update = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    u, s, v = torch.linalg.svd(update, full_matrices=False)
    layer = model.get_base_model().blocks[3].attn.qkv
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(s[:, None] * v)
        layer.lora_B["default"].weight.copy_(u / layer.scaling["default"])
    assert layer.scaling["default"] == 2.0
    assert torch.allclose(lora.merge(model).blocks[3].attn.qkv.weight, weight + update, atol=1e-5)


@pytest.mark.parametrize(("rank", "alpha"), [(4, 8.0), (4, 1.0), (2, 6.0)])
def test_a_merged_weight_is_the_old_one_plus_alpha_over_rank_times_the_product(rank, alpha):
    model, plain = adapted("vit-slim", rank, alpha=alpha), models.build("vit-slim", 1)
    layer = model.get_base_model().blocks[3].attn.qkv
    a, b = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
    torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(3))
    expected = plain.blocks[3].attn.qkv.weight + alpha / rank * b @ a
    assert a.shape == (rank, 96) and torch.allclose(lora.merge(model).blocks[3].attn.qkv.weight, expected, atol=1e-5)


def test_adapters_of_alpha_zero_leave_linear_probing_bit_for_bit(bench):
    probe, method = methods.get("linear-probing"), methods.get("lora")
    expected = probe.fit(bench, probe.hyper(lr=0.1)).model.state_dict()
    tuned = method.fit(bench, method.hyper(lr=0.1, batchnorm="eval", alpha=0.0)).model.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in tuned.items())


def test_layers_are_chosen_by_the_network_or_by_name():
    vit, resnet = models.build("vit-slim", 0), models.build("resnet18-slim", 0)
    assert lora.layers(vit) == [f"blocks.{i}.attn.qkv" for i in range(6)]
    assert len(lora.layers(vit, "attn.qkv, attn.proj,mlp.fc1,mlp.fc2")) == 24
    assert len(lora.layers(resnet)) == 20 and "fc" not in lora.layers(resnet)
    assert lora.layers(resnet, "conv1") == ["conv1", *(f"layer{i}.{j}.conv1" for i in range(1, 5) for j in (0, 1))]


def test_wrong_targets_and_ranks_are_named():
    with pytest.raises(AimfairError, match="no layer is called 'qvk'; there are: .*blocks.0.attn.qkv"):
        adapted("vit-slim", targets="qvk")
    with pytest.raises(AimfairError, match="rank must be at least 1, got 0"):
        adapted("vit-slim", rank=0)


def test_the_adapters_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = adapted("vit-slim").state_dict()
    torch.manual_seed(6)
    second = adapted("vit-slim").state_dict()
    assert all(torch.equal(first[name], value) for name, value in second.items())
