"""The backbones: torchvision's and timm's names and sizes, seeds, evaluation, weights of ImageNet."""

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from aimfair import models
from aimfair.environment import AimfairError


@pytest.mark.parametrize(
    ("backbone", "reference", "tensors", "scalars", "size", "width"),
    [
        ("resnet18", lambda: torchvision.models.resnet18(num_classes=1), 62, 11_177_025, 64, 512),
        ("vit-s-32", lambda: timm.create_model("vit_small_patch32_224", num_classes=1), 152, 22_494_337, 224, 384),
    ],
)
def test_a_backbone_has_the_names_shapes_and_function_of_the_librarys(
    backbone, reference, tensors, scalars, size, width
):
    ours, theirs = models.build(backbone, 0), reference()
    shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1] and len(shapes[0]) == tensors
    assert sum(p.numel() for p in ours.parameters()) == scalars
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ours.eval()(x), theirs.eval()(x).squeeze(-1), atol=1e-5)
    assert ours.features(x).shape == (2, width) and ours(x[:1]).shape == (1,)


def test_the_slim_resnet_keeps_the_62_names_at_a_sixteenth_of_the_size():
    slim, full = models.build("resnet18-slim", 0), models.build("resnet18", 0)
    assert [n for n, _ in slim.named_parameters()] == [n for n, _ in full.named_parameters()]
    assert sum(p.numel() for p in slim.parameters()) < 11_177_025 / 15


@pytest.mark.parametrize(
    ("backbone", "head", "size", "width"), [("resnet18-slim", "fc", 32, 128), ("vit-slim", "head", 64, 96)]
)
def test_weights_depend_on_the_seed_alone_and_logits_not_on_the_batch_size(faces, backbone, head, size, width):
    torch.manual_seed(5)
    model = models.build(backbone, 3).train()
    torch.manual_seed(6)
    again, other = (models.build(backbone, seed).state_dict() for seed in (3, 4))
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, other[name]) for name, value in again.items())
    data = faces((5, 6, 7, 8), size=size)
    whole, parts = models.evaluate(model, data), models.evaluate(model, data, batch_size=3)
    assert torch.allclose(whole, parts, atol=1e-5) and model.training and not whole.requires_grad
    assert models.evaluate(model, data, output="features").shape == (26, width)
    assert models.head(model) == head


def test_the_slim_vit_is_small():
    parameters = [p.numel() for p in models.build("vit-slim", 0).parameters()]
    assert (len(parameters), sum(parameters)) == (91, 818_137)


def test_imagenet_weights_load_from_this_machine_or_an_error_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for backbone, place in (("resnet18", "torchvision's model page"), ("vit-s-32", "huggingface.co/timm/")):
        with pytest.raises(AimfairError, match=f"not on this machine: put .* .from {place}"):
            models.build(backbone, 0, weights="imagenet")
    resnet = {n: v.clone() for n, v in torchvision.models.resnet18().state_dict().items()}
    save_file(resnet, folder / "resnet18-f37072fd.safetensors")
    model = models.build("resnet18", 0, weights="imagenet")
    assert torch.equal(model.layer3[0].conv1.weight, resnet["layer3.0.conv1.weight"])
    assert model.fc.weight.shape == (1, 512)

    vit = timm.create_model("vit_small_patch32_224").state_dict()
    cached = tmp_path / "hf" / f"models--timm--{models.VIT_S_32}"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    save_file(vit, cached / "snapshots" / "abc" / "model.safetensors")
    model = models.build("vit-s-32", 0, weights="imagenet")
    assert torch.equal(model.pos_embed, vit["pos_embed"]) and model.head.weight.shape == (1, 384)
    save_file({n: v + 1 for n, v in vit.items()}, folder / f"{models.VIT_S_32}.safetensors")  # torch's folder is first
    assert torch.equal(models.build("vit-s-32", 0, weights="imagenet").pos_embed, vit["pos_embed"] + 1)


@pytest.mark.parametrize(
    ("backbone", "weights", "fault"),
    [
        ("resnet18-slim", "imagenet", "do not fit resnet18-slim: use backbone resnet18 or vit-s-32"),
        ("alexnet", "scratch", "no backbone 'alexnet'; there are: .*resnet18-slim"),
        ("resnet18-slim", "nowhere.safetensors", "no weights at nowhere.safetensors"),
    ],
)
def test_bad_input_is_named(backbone, weights, fault):
    with pytest.raises(AimfairError, match=fault):
        models.build(backbone, 0, weights)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    models.save(models.build("resnet18-slim", 0), tmp_path / "slim.safetensors")
    save_file({"fc.bias": torch.zeros(1)}, tmp_path / "few.safetensors")
    for name in ("slim", "few"):
        file = tmp_path / f"{name}.safetensors"
        with pytest.raises(AimfairError, match=f"^{file} does not fit resnet18: [^\n]*$"):
            models.build("resnet18", 0, str(file))
