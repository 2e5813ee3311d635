"""A small classifier and its data, for the tests of training."""

import torch
from torch import nn

from course_lib.corpora import shuffled_batches
from course_lib.training import classification_loss, cosine, train


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(64, 6, generator=generator)
    return x, (x[:, :3] + x[:, 3:]).argmax(-1)


def fit(model, *, batches=None, loss_fn=classification_loss, optimizer=None, **options):
    options = {"steps": 30, "schedule": cosine(30, 5), "progress": False, "seed": 4} | options
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=0.01)
    return train(model, batches or shuffled_batches(data(), 16, 3), loss_fn, optimizer, **options)


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
