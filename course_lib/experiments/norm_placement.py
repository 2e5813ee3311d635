"""Where the norm stands in a deep residual MLP, and what learning rate each placement bears."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.corpora import fashion_tensors, shuffled_batches
from course_lib.experiments.study import Outcome, Study, ending, outcome_of, shared_fields
from course_lib.models.residual_mlp import ResidualMLP, ResidualMLPConfig
from course_lib.training import History, classification_loss, cosine, train

VARIANTS: dict[str, dict[str, Any]] = {
    "pre-norm": {"norm": "layernorm", "placement": "pre"},
    "post-norm": {"norm": "layernorm", "placement": "post"},
    "no norm": {"norm": "none", "placement": "pre"},
    "RMSNorm": {"norm": "rmsnorm", "placement": "pre"},
}
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
WARMUPS = (0, 80)


@dataclass(frozen=True)
class Config:
    """One arm: a network, and how it is trained."""

    norm: str
    placement: str
    lr: float
    warmup: int
    steps: int = 400
    batch_size: int = 128
    n_layers: int = 24
    d_model: int = 128
    d_ff: int = 128
    skip_scale: float = 1.0


def build(config: Config, seed: int) -> ResidualMLP:
    """The network of an arm, with the weights of `seed`."""
    return ResidualMLP(ResidualMLPConfig(**shared_fields(config, ResidualMLPConfig), seed=seed))


def fit(model: nn.Module, config: Config, seed: int, stop_at: int | None = None, **options: Any) -> History:
    """Train with Adam, without clipping (it would hide what is asked) and without weight decay."""
    batches = shuffled_batches(fashion_tensors("train"), config.batch_size, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.0)
    schedule = cosine(config.steps, config.warmup)
    return train(
        model, batches, classification_loss, optimizer, steps=config.steps, schedule=schedule, clip_norm=None,
        seed=seed, stop_at=stop_at, **options,
    )  # fmt: skip


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss in nats and accuracy on pictures that were not trained on."""
    device = next(model.parameters()).device
    loss, metrics = classification_loss(model.eval(), (images.to(device), labels.to(device)))
    return {"test_loss": loss.item(), "test_accuracy": metrics["accuracy"].item()}


def run(config: dict[str, Any], seed: int, stop_at: int | None) -> Outcome:
    """Train one arm, and evaluate it on the test pictures."""
    arm = Config(**config)
    model = build(arm, seed)
    history = fit(model, arm, seed, stop_at, progress=False)
    metrics = ending(history) | evaluate(model, *fashion_tensors("test"))
    if history.diverged:  # the weights are those before the step that would have spoilt them: their loss says nothing
        metrics["test_loss"] = None
    return outcome_of(model, history, metrics)


STUDY = Study(
    name="norm_placement",
    question=(
        "In a 24-layer residual MLP on Fashion-MNIST, which learning rates can be used with the norm before the block, "
        "after the addition, nowhere, or as RMSNorm; and does warm-up change the answer?"
    ),
    prediction=(
        "After Xiong et al. 2020: (1) post-norm needs warm-up: without it, its final loss at the best learning rate is "
        "worse, and its largest usable learning rate is at least three times smaller than with it; (2) pre-norm does "
        "not need warm-up: its best final loss with and without differs by less than the spread over seeds; (3) at "
        "each one's best learning rate with warm-up, post-norm comes within 10 % of pre-norm's final loss. Ours: "
        "(4) RMSNorm equals pre-norm LayerNorm within the spread over seeds at every learning rate; (5) without a norm "
        "the network still trains at small learning rates, but its largest usable one is at least ten times smaller "
        "than pre-norm's. Usable: the median final loss is below 1.0 (chance is 2.30)."
    ),
    arms={
        f"{variant} lr={lr:g} warmup={warmup}": asdict(Config(lr=lr, warmup=warmup, **placement))
        for variant, placement in VARIANTS.items()
        for warmup in WARMUPS
        for lr in LEARNING_RATES
    },
    run=run,
    seeds=5,
)
