"""The learner's function inside a real model: same answers, same gradients, same training as with the library's."""

from typing import Any

import torch
from torch import Tensor, nn

from course_lib.exercises import Wrong, expect_gradient, largest_of, learners_code
from course_lib.training import LossFn, classification_loss


def same_model(theirs: nn.Module, mine: nn.Module, batch: Any, loss_fn: LossFn = classification_loss) -> str:
    """Compare two models with equal weights, `mine` with the learner's function in it; both are trained in place.

    `loss_fn(model, batch)` as in `training.train`; by default batch is inputs and labels of a classifier. Returns loss
    and metrics as half a sentence, raises Wrong where answers, gradients or ten steps of training differ.
    """
    (want, theirs_judged), (got, mine_judged) = (_answers(model, batch, loss_fn) for model in (theirs, mine))
    if not torch.allclose(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item()):
        raise Wrong(
            f"In the model your function gives other answers: logits differ by {(got - want).abs().max():.2f}, of at "
            f"most {want.abs().max():.1f}. The mean may hide it: {mine_judged} with yours, {theirs_judged} without."
        )
    wanted, found = _gradients(theirs, batch, loss_fn), _gradients(mine, batch, loss_fn)
    for (name, _), gradient, mine_gradient in zip(theirs.named_parameters(), wanted, found, strict=True):
        if gradient is not None:
            expect_gradient(mine_gradient, gradient, name, largest_of(wanted))
    losses = [_ten_steps(model, batch, loss_fn) for model in (theirs, mine)]
    if not abs(losses[0] - losses[1]) <= 1e-4 * losses[0]:
        raise Wrong(
            f"Trained for ten steps, the loss is {losses[1]:.4f} with your function, {losses[0]:.4f} without it."
        )
    return (
        f"{mine_judged} (the library's: {theirs_judged}); after ten steps of training the loss is "
        f"{losses[1]:.4f} (the library's: {losses[0]:.4f})."
    )


@torch.no_grad()
def _answers(model: nn.Module, batch: Any, loss_fn: LossFn) -> tuple[Tensor, str]:
    """The logits that the loss is made of, and loss and metrics in words."""
    logits = []
    hook = model.register_forward_hook(lambda module, inputs, output: logits.append(output))
    try:
        loss, metrics = loss_fn(model, batch)
    finally:
        hook.remove()
    return logits[-1], ", ".join([f"loss {loss:.4f}", *(f"{name} {value:.1%}" for name, value in metrics.items())])


def _gradients(model: nn.Module, batch: Any, loss_fn: LossFn) -> tuple[Tensor | None, ...]:
    """Gradient of the loss with respect to each parameter; None where no path leads to it."""
    loss, _ = loss_fn(model, batch)
    with learners_code("The backward pass through your function"):
        return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def _ten_steps(model: nn.Module, batch: Any, loss_fn: LossFn) -> float:
    """The loss after ten steps of gradient descent."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(10):
        loss, _ = loss_fn(model, batch)
        optimizer.zero_grad()
        with learners_code("The backward pass through your function"):
            loss.backward()
        optimizer.step()
    return loss_fn(model, batch)[0].item()
