"""The backbones: torchvision's names and sizes, seeds, evaluation."""

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from aimfair import models
from aimfair.environment import AimfairError


def test_resnet18_has_the_names_shapes_and_function_of_torchvisions():
    ours = models.build("resnet18", seed=0)
    theirs = torchvision.models.resnet18(num_classes=1)
    assert {n: tuple(p.shape) for n, p in ours.named_parameters()} == {
        n: tuple(p.shape) for n, p in theirs.named_parameters()
    }
    assert len(dict(ours.named_parameters())) == 62
    assert sum(p.numel() for p in ours.parameters()) == 11_177_025
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ours.eval()(x), theirs.eval()(x).squeeze(-1), atol=1e-5)


def test_slim_backbone_keeps_the_62_names_at_a_sixteenth_of_the_size():
    slim, full = models.build("resnet18-slim", 0), models.build("resnet18", 0)
    assert [n for n, _ in slim.named_parameters()] == [n for n, _ in full.named_parameters()]
    assert sum(p.numel() for p in slim.parameters()) < 11_177_025 / 15


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = models.build("resnet18-slim", 3).state_dict()
    torch.manual_seed(6)
    second = models.build("resnet18-slim", 3).state_dict()
    other = models.build("resnet18-slim", 4).state_dict()
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_a_batch_of_one_gives_one_logit():
    assert models.build("resnet18-slim", 0).eval()(torch.zeros(1, 3, 32, 32)).shape == (1,)


def test_evaluation_does_not_depend_on_the_batch_size_and_leaves_the_mode(faces):
    data = faces((5, 6, 7, 8))
    model = models.build("resnet18-slim", 0).train()
    whole, parts = models.evaluate(model, data), models.evaluate(model, data, batch_size=3)
    assert torch.allclose(whole, parts, atol=1e-5) and model.training
    assert models.evaluate(model, data, output="features").shape == (26, 128)
    assert not whole.requires_grad


def test_imagenet_weights_load_from_this_machine_or_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(AimfairError, match="not on this machine"):
        models.build("resnet18", 0, weights="imagenet")
    state = {n: v.clone() for n, v in torchvision.models.resnet18().state_dict().items()}
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    save_file(state, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.safetensors")
    model = models.build("resnet18", 0, weights="imagenet")
    assert torch.equal(model.layer3[0].conv1.weight, state["layer3.0.conv1.weight"])
    assert model.fc.weight.shape == (1, 512)
    with pytest.raises(AimfairError, match="do not fit"):
        models.build("resnet18-slim", 0, weights="imagenet")


def test_vit_s_32_is_timms_with_152_tensors_and_22_million_numbers():
    ours, theirs = models.build("vit-s-32", 0), timm.create_model("vit_small_patch32_224", num_classes=1)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]
    assert len(list(ours.parameters())) == 152 and sum(p.numel() for p in ours.parameters()) == 22_494_337
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ours.eval()(x), theirs.eval()(x).squeeze(-1), atol=1e-5)
    assert ours.features(x).shape == (2, 384)


def test_the_slim_vit_has_logits_and_features_as_a_resnet_has(faces):
    data = faces((3, 4, 5, 6), size=64)
    model = models.build("vit-slim", 3)
    assert len(list(model.parameters())) == 91 and sum(p.numel() for p in model.parameters()) == 818_137
    assert models.evaluate(model, data).shape == (18,)
    assert models.evaluate(model, data, output="features").shape == (18, 96)
    whole, parts = models.evaluate(model, data), models.evaluate(model, data, batch_size=1)
    assert torch.allclose(whole, parts, atol=1e-5)
    again, other = (models.build("vit-slim", seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert not torch.equal(again["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_the_head_is_found_by_what_it_is():
    assert [models.head(models.build(name, 0)) for name in ("resnet18-slim", "vit-slim")] == ["fc", "head"]


def test_imagenet_weights_of_the_vit_come_from_torchs_folder_or_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    with pytest.raises(AimfairError, match="not on this machine: put vit_small_patch32_224.*from huggingface.co/timm/"):
        models.build("vit-s-32", 0, weights="imagenet")
    state = timm.create_model("vit_small_patch32_224").state_dict()
    cached = tmp_path / "hf" / f"models--timm--{models.VIT_S_32}"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    save_file(state, cached / "snapshots" / "abc" / "model.safetensors")
    model = models.build("vit-s-32", 0, weights="imagenet")
    assert torch.equal(model.pos_embed, state["pos_embed"]) and model.head.weight.shape == (1, 384)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    save_file({n: v + 1 for n, v in state.items()}, folder / f"{models.VIT_S_32}.safetensors")
    assert torch.equal(models.build("vit-s-32", 0, weights="imagenet").pos_embed, state["pos_embed"] + 1)
    with pytest.raises(AimfairError, match="do not fit vit-slim: use backbone resnet18 or vit-s-32"):
        models.build("vit-slim", 0, weights="imagenet")


def test_unknown_backbone_names_the_known_ones():
    with pytest.raises(AimfairError, match="resnet18-slim"):
        models.build("alexnet", 0)
