"""Check for the open exercise of lesson 05: a positional scheme of one's own, plugged into a decoder and trained."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from course_lib import corpora, positions
from course_lib.attention import with_attention
from course_lib.checks import check_at_least
from course_lib.evaluation import future_leak, next_token_losses, perplexity
from course_lib.exercises import Wrong, call, checker, expect_kind, learners_code
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.positions import Position
from course_lib.training import next_token_loss, optimise, windows

WIDTH, HEADS, READ, TRAINED = 64, 4, 512, 128
SIZES = PythiaConfig(max_positions=READ, d_model=WIDTH, n_heads=HEADS, n_layers=2, position="none")
HOOKS = ("embed", "rotate", "bias", "score")
BETTER = 0.98  # one training each: smaller differences may be chance
RECIPE = {"lr": 1e-2, "weight_decay": 0.1}
Scheme = Callable[[int, int], Position]


def _built(fn: Scheme) -> Position:
    scheme = call(fn, WIDTH, HEADS)
    if isinstance(scheme, type):
        raise Wrong(f"You return the class {scheme.__name__}; return an instance: `{scheme.__name__}(...)`.")
    if not isinstance(scheme, Position):
        raise Wrong(f"You return a {type(scheme).__name__}; an instance of a class of your own, a Position, is needed.")
    if "_modules" not in vars(scheme):
        raise Wrong(f"{type(scheme).__name__}.__init__ must call `super().__init__()` first: a Position is a module.")
    if all(getattr(getattr(scheme, hook), "__func__", None) is getattr(Position, hook) for hook in HOOKS):
        raise Wrong(f"Your scheme changes no hook: it is `none`. The four are {', '.join(HOOKS)}.")
    ours = [value for value in vars(positions).values() if isinstance(value, type) and issubclass(value, Position)]
    known = {getattr(scheme_type, hook) for scheme_type in ours for hook in HOOKS}
    if all(getattr(getattr(scheme, hook), "__func__", None) in known for hook in HOOKS):
        raise Wrong(
            f"{type(scheme).__name__} is the library's: all its hooks are. Write one of your own, in a class of yours."
        )
    return scheme


def plugged(scheme: Position, config: PythiaConfig = SIZES) -> Pythia:
    """A Pythia with `scheme` at its embeddings and in all of its attentions."""
    return with_attention(Pythia(config), position=scheme)


def _asked(scheme: Position, x: Tensor, q: Tensor, k: Tensor, q_pos: Tensor, k_pos: Tensor) -> dict[str, Any]:
    """What each hook gives, for some places; arguments changed in place are Wrong."""
    arguments = {
        "embed": (x, q_pos),
        "rotate": (q, k, q_pos, k_pos),
        "bias": (q_pos, k_pos),
        "score": (q, q_pos, k_pos),
    }
    answers = {}
    for hook in HOOKS:
        try:
            (answers[hook],) = call(lambda *a, hook=hook: (getattr(scheme, hook)(*a),), *arguments[hook])
        except Wrong as error:
            rows = " Here each sequence has its own places, (B, T): `q_pos.unsqueeze(-1)`, not `q_pos[:, None]`."
            raise Wrong(f"{hook}: {error}{rows if q_pos.ndim == 2 else ''}") from error
    return answers


def _differ(one: Any, other: Any) -> bool:
    """Whether two tensors, or pairs of tensors, of one shape hold different numbers."""
    pairs = zip(one, other, strict=False) if isinstance(one, tuple | list) else [(one, other)]
    both = [(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape]
    return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in both)


@torch.no_grad()
def _expect_hooks(scheme: Position) -> None:
    """Shapes, and the same answers for places (B, T) as for each row alone."""
    q_pos, k_pos = torch.tensor([4, 5, 9]), torch.tensor([0, 1, 4, 5, 9])
    x = torch.randn(2, 3, WIDTH)
    q, k = torch.randn(2, HEADS, 3, WIDTH // HEADS), torch.randn(2, HEADS, 5, WIDTH // HEADS)
    shape = (HEADS, 3, 5)
    rows = torch.tensor([[0], [150]])
    alone = [_asked(scheme, x, q, k, q_pos + row, k_pos + row) for row in rows.flatten().tolist()]
    both = _asked(scheme, x, q, k, q_pos + rows, k_pos + rows)
    again = _asked(scheme, x, q, k, q_pos, k_pos)
    if any(_differ(alone[0][hook], again[hook]) for hook in HOOKS):
        raise Wrong("Called twice, your scheme gives different numbers. Is something drawn, or counted, in a hook?")
    for answers in (*alone, both):
        several = answers is both
        expect_kind(answers["embed"], x, "The result of embed")
        if not isinstance(answers["rotate"], tuple | list) or len(answers["rotate"]) != 2:
            raise Wrong("rotate must return two tensors: queries and keys.")
        for name, got, want in zip(("queries", "keys"), answers["rotate"], (q, k), strict=True):
            expect_kind(got, want, f"Of rotate, the {name}")
        if (score := answers["score"]) is not None:
            expect_kind(score, q.new_empty(2, *shape), "The result of score")
        if (bias := answers["bias"]) is not None:
            if not isinstance(bias, Tensor) or not bias.is_floating_point():
                kind = bias.dtype if isinstance(bias, Tensor) else f"a {type(bias).__name__}"
                raise Wrong(f"The result of bias is {kind}; needed is a tensor of floating-point numbers, or None.")
            needed = (2, *shape) if several else shape
            if bias.ndim != len(needed) or any(n not in (w, 1) for n, w in zip(bias.shape, needed, strict=True)):
                places = "(B, T)" if several else "(T,)"
                raise Wrong(f"For places {places}, bias has shape {tuple(bias.shape)}; needed is {needed}, H may be 1.")
        for tensor in (answers["embed"], *answers["rotate"], score, bias):
            if tensor is not None and (tensor.isnan().any() or (tensor == torch.inf).any()):
                raise Wrong("A hook gives nan or infinity. Which step divides by 0, or takes the logarithm of 0?")
    for row, answers in enumerate(alone):
        for hook in HOOKS:
            if both[hook] is None:
                continue
            pairs = zip(both[hook], answers[hook], strict=True) if hook == "rotate" else [(both[hook], answers[hook])]
            for got, want in pairs:
                of_row = want if hook == "bias" else want[row]
                if not torch.allclose(got.expand(2, *got.shape[1:])[row], of_row, atol=1e-4):
                    raise Wrong(
                        f"{hook}: for places (B, T), sequence {row} gets other numbers than with its row alone."
                    )


@torch.no_grad()
def _expect_decoder(scheme: Position) -> None:
    """Nothing comes from the future, cached steps agree with one call, and the model goes on beyond its training."""
    model = plugged(scheme, PythiaConfig(vocab_size=50, max_positions=READ, d_model=WIDTH, n_heads=HEADS,
                                         n_layers=2, position="none")).eval()  # fmt: skip
    ids = torch.randint(50, (1, 20))
    with learners_code("In a decoder your scheme"):
        whole, leak = model(ids), future_leak(model, ids[0]).max().item()
    if not whole.isfinite().all():
        raise Wrong("With your scheme the logits of a decoder are not finite. Are its numbers too large?")
    if leak > 1e-6:
        raise Wrong(f"Your scheme lets tokens hear of later ones: outputs before a changed token move by {leak:.1g}.")
    for sizes, how in (([1] * 20, "token by token"), ([7, 1, 12], "in pieces of 7, 1 and 12 tokens")):
        caches = model.new_caches()
        with learners_code(f"With a cache, {how}, your scheme"):
            steps = torch.cat([model(piece, caches=caches) for piece in ids.split(sizes, 1)], 1)
        if not torch.allclose(steps, whole, atol=1e-3):
            raise Wrong(
                f"With a cache, {how}, the logits differ from those of one call by {(steps - whole).abs().max():.2g}. "
                "A hook may use the numbers in its positions alone: not how many there are, nor the last one."
            )
    long = torch.randint(50, (1, READ))
    other = long.clone()
    other[:, -1] = (long[:, -1] + 1) % 50
    try:
        with learners_code("Your scheme"):
            logits = model(long)
            leak = (model(other) - logits)[:, :-1].abs().max().item()
    except Wrong as error:
        raise Wrong(f"A text of {READ} tokens: {error} It must go on beyond the {TRAINED} of its training.") from error
    if leak > 1e-6:
        raise Wrong(f"In a text of {READ} tokens the last one changes earlier outputs, by up to {leak:.1g}: a leak.")
    if not logits.isfinite().all():
        raise Wrong(f"In a text of {READ} tokens logits are not finite: what grows without end, or is divided by 0?")


def perplexities(scheme: Position, steps: int, seed: int = 0) -> tuple[float, float]:
    """Train a small Pythia on texts of 128 tokens; its perplexity on held-out ones at places 65-128 and 129-512."""
    model = plugged(scheme)
    batches = corpora.shuffled_batches((windows(("speeches",), "train", TRAINED),), 8, seed)
    recipe = SimpleNamespace(**RECIPE, steps=steps, warmup=steps // 10)
    with learners_code("In training your scheme"):
        history = optimise(model, batches, next_token_loss, recipe, seed)
        held_out = windows(("speeches",), "validation", READ)[::10].to(model.embedding.weight.device)
        losses = next_token_losses(model, held_out)
    if history.diverged or not losses.isfinite().all():
        raise Wrong("With your scheme training diverges: loss or gradients are not finite. Are its numbers too large?")
    return perplexity(losses[:, 64:TRAINED]), perplexity(losses[:, TRAINED:])


@checker
def scheme(fn: Scheme, steps: int = 150) -> str:
    """Check the Position that `fn(d_model, n_heads)` gives: it plugs in, and on long texts beats "none" by 2 %.

    Two small Pythias are trained for `steps` steps on 128 tokens, one with it and one without any scheme.
    """
    check_at_least("steps", steps, 1)
    mine = copy.deepcopy(_built(fn)).eval()
    with learners_code("The check of your scheme"):
        _expect_hooks(mine)
        _expect_decoder(mine)
    near, far = perplexities(copy.deepcopy(_built(fn)), steps)  # an instance may be kept outside of fn
    none_near, none_far = perplexities(Position(), steps)
    found = (
        f"After {steps} steps on texts of {TRAINED} tokens the perplexity at places 65 to 128 is {near:.1f}, without a "
        f"scheme {none_near:.1f}; at places 129 to {READ} it is {far:.1f}, without {none_far:.1f}."
    )
    if far < BETTER * none_far:
        return f"Right: it plugs in, does not leak, and goes on. {found}"
    found += " (Needed there are 2 % less: below that it may be chance.)"
    if near < BETTER * none_near:
        raise Wrong(
            f"It helps on the lengths of its training, and hurts beyond. {found} What does it give for a distance or a "
            "place that was never trained?"
        )
    raise Wrong(
        f"It plugs in, but the model is no better for it. {found} The causal mask alone tells a model something of "
        "order: what does yours add, and are its numbers as large as those that it is added to?"
    )
