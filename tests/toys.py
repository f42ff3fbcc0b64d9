"""Toy faces that a classifier can learn in a second."""

from functools import cache

import numpy as np
import torch

from aimfair import methods
from aimfair.faces import FaceSet


def toy_faces(counts=(8, 8, 8, 8), seed=0, size=32):
    """Noise with two cues: a bright bar in the lower half for target 1, a red tint for protected 1."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(4).repeat_interleave(torch.tensor(counts))
    target, protected = group // 2, group % 2
    images = torch.randint(0, 120, (len(group), 3, size, size), generator=generator)
    images[target == 1, :, size // 2 : size // 2 + 6, 6:-6] += 100
    images[protected == 1, 0] += 90
    order = torch.randperm(len(group), generator=generator)
    images = images.clamp(0, 255).to(torch.uint8)[order]
    names = np.array([f"toy-{seed}-{i:05d}" for i in range(len(group))])
    return FaceSet(images, target[order], protected[order], names)


def gaussian_toy(n=20_000, a=1.0, b=2.0, agree=0.95, noise=10, seed=0):
    """Features that a linear classifier can learn: x (n, noise + 3), target y and protected s (n,) int64.

    Coordinate 0 shows y at distance ``a``, coordinate 1 shows s at distance ``b``, then noise, last a constant 1; s
    agrees with y in a share ``agree`` of the samples. The rule on coordinate 0 alone is right in Phi(a) of every group
    (a = 1: .841); ERM leans on coordinate 1 and leaves about .39 of the minorities right (b = 2; .59 with b = 1, .34 with b = 3).
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=generator)
    s = torch.where(torch.rand(n, generator=generator) < agree, y, 1 - y)
    x = torch.randn(n, noise + 3, generator=generator)
    x[:, 0] += a * (2 * y - 1)
    x[:, 1] += b * (2 * s - 1)
    x[:, -1] = 1.0
    return x, y, s


def fit_linear(x, y, loss, order=None, epochs=15, lr=0.3, weight_decay=1e-4, batch_size=500, seed=0, model=None):
    """Train a linear classifier (or ``model``) by SGD with a loss and an order as :func:`aimfair.training.fit` takes
    them, the step size falling linearly to 0; returns the model."""
    model = model or Linear(x.shape[1])
    optimiser = torch.optim.SGD(model.parameters(), lr, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = lr * (1 - epoch / epochs)
        drawn = torch.randperm(len(x), generator=generator) if order is None else order(generator)
        for index in drawn.split(batch_size):
            optimiser.zero_grad()
            loss(model(x[index]), y[index].float(), index).backward()
            optimiser.step()
    return model


class Linear(torch.nn.Module):
    """One logit per sample, (n, d) -> (n,), no bias: the toy's last feature is a constant."""

    def __init__(self, features):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(features))

    def forward(self, x):
        return x @ self.weight


def group_accuracies(logits, y, s):
    """Shares of right predictions in the four groups, in group order."""
    right = ((logits >= 0) == (y == 1)).double()
    return [right[(2 * y + s) == g].mean().item() for g in range(4)]


def fit_method(bench, name, **hyper):
    """Train a method as a study does: without the labels that it did not declare."""
    method = methods.get(name)
    return method.fit(bench.seen_by(method), method.hyper(**hyper))


def state(trained):
    """A copy of the weights and running statistics of a model, or of a trained method's."""
    return {name: value.clone() for name, value in getattr(trained, "model", trained).state_dict().items()}


def same(first, second, names=None):
    """Whether two states have the same values, bit for bit; all or those of ``names``."""
    return all(torch.equal(first[name], second[name]) for name in names or first)


def same_weights(first, second):
    """Whether two trained methods have the same weights and running statistics, bit for bit."""
    a, b = state(first), state(second)
    return a.keys() == b.keys() and same(a, b)


def worst_group_on_fair_toy(model):
    """Accuracy of the worst group of the Gaussian toy whose shortcut tells nothing."""
    x, y, s = fair_toy()
    return min(group_accuracies(model(x).detach(), y, s))


@cache
def fair_toy():
    """Many samples of the Gaussian toy in which protected attribute and target are independent."""
    return gaussian_toy(40_000, agree=0.5, seed=1)
