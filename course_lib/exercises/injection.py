"""The learner's function inside a real model: same answers, same gradients, same training as with the library's."""

import torch
from torch import Tensor, nn

from course_lib.exercises import Wrong, expect_gradient, learners_code
from course_lib.training import classification_loss

Batch = tuple[Tensor, Tensor]


def same_model(theirs: nn.Module, mine: nn.Module, batch: Batch) -> str:
    """Compare two classifiers with equal weights, `mine` with the learner's function in it; both are trained in place.

    batch is inputs and labels (B,). Returns accuracy and loss as half a sentence, raises Wrong where the two differ.
    """
    with torch.no_grad():
        want, got = theirs(batch[0]), mine(batch[0])
        before, accuracy = (classification_loss(model, batch)[1]["accuracy"].item() for model in (theirs, mine))
    if not torch.allclose(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item()):
        raise Wrong(
            f"In the model your function gives other answers: logits differ by {(got - want).abs().max():.2f}, of "
            f"at most {want.abs().max():.1f}. Accuracy may hide it: {accuracy:.1%} with yours, {before:.1%} without."
        )
    wanted, found = _gradients(theirs, batch), _gradients(mine, batch)
    for name, gradient in wanted.items():
        if gradient is not None:
            expect_gradient(found[name], gradient, name)
    losses = [_ten_steps(model, batch) for model in (theirs, mine)]
    if not abs(losses[0] - losses[1]) <= 1e-4 * losses[0]:
        raise Wrong(
            f"Trained for ten steps, the loss is {losses[1]:.4f} with your function, {losses[0]:.4f} without it."
        )
    return (
        f"accuracy {accuracy:.1%} (the library's: {before:.1%}); after ten steps of training the loss is "
        f"{losses[1]:.4f} (the library's: {losses[0]:.4f})."
    )


def _gradients(model: nn.Module, batch: Batch) -> dict[str, Tensor | None]:
    """Gradient of the loss with respect to each parameter, by its name; None where no path leads to it."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    loss, _ = classification_loss(model, batch)
    with learners_code("The backward pass through your function"):
        return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))


def _ten_steps(model: nn.Module, batch: Batch) -> float:
    """The loss after ten steps of gradient descent."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(10):
        loss, _ = classification_loss(model, batch)
        optimizer.zero_grad()
        with learners_code("The backward pass through your function"):
            loss.backward()
        optimizer.step()
    return classification_loss(model, batch)[0].item()
