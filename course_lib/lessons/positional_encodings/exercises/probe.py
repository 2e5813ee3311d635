"""Checks for an exercise of lesson 05: a probe that tells decoders with silent positional bugs from right ones."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from course_lib.attention import Cache, Pattern, WindowKVCache, causal, with_attention
from course_lib.exercises import Wrong, call, checker
from course_lib.experiments.positions import FusedAlibi
from course_lib.models.pythia import Pythia, PythiaConfig
from course_lib.positions import Position, RotaryPosition, SinusoidalPosition

VERDICTS = ("fine", "leak", "cache")
SIZES = PythiaConfig(vocab_size=50, max_positions=32, d_model=32, n_heads=4, n_layers=2, position="none")
LENGTHS = (21, 17)  # the last token stands alone in its block of 4: who changes it alone sees no leak there
Probe = Callable[[Pythia, Tensor], str]
_fused = partial(FusedAlibi, SIZES.n_heads)


class _Slope(Position):
    """ALiBi of one slope from the keys' places alone; behind a causal mask the softmax sees no difference."""

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """Places (T,) and (S,) -> (1, T, S)."""
        return (0.25 * k_pos.float()).expand(1, len(q_pos), -1)


class _Centred(Position):
    """Takes part of the mean over the text from its vectors: each token hears a little of all."""

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        return x - 0.05 * x.mean(1, keepdim=True)


class _Restarting(RotaryPosition):
    """Counts the places of each call from 0."""

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
        """As RoPE, with the first place of the call taken from all."""
        return super().rotate(q, k, q_pos - q_pos[0], k_pos - k_pos[0])


class _Late(SinusoidalPosition):
    """Weak waves; in cached steps those of the next place."""

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        return super().embed(x, pos + (pos[0] > 0))


class _Stumbling(RotaryPosition):
    """In a cached step at place 9 the query is turned as if it stood at 8."""

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
        """As RoPE, but for that query."""
        wrong = (q_pos == 9) & (q_pos[0] > 0)
        return super().rotate(q, k, q_pos - wrong.long(), k_pos)


def _model(scheme: Position | None = None, mask: Pattern | None = causal, radius: int | None = None) -> Pythia:
    """A Pythia with this scheme and mask; `radius`: its caches forget what is farther back."""
    model = (Pythia if radius is None else partial(_WithForgetfulCaches, radius=radius))(SIZES)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
                parameter.mul_(2)  # attention that is not flat, so that a bug is felt
    return with_attention(model.eval(), mask=mask, position=RotaryPosition(8) if scheme is None else scheme)


class _Forgetful(WindowKVCache):
    """Says that it holds all, and forgets what is farther back than `radius`."""

    def __init__(self, radius: int) -> None:
        super().__init__(radius)
        self.reach = math.inf


class _WithForgetfulCaches(Pythia):
    def __init__(self, config: PythiaConfig, radius: int) -> None:
        super().__init__(config)
        self.radius = radius

    def new_caches(self) -> Sequence[Cache]:
        """A forgetful one for each block."""
        return [_Forgetful(self.radius) for _ in self.blocks]


def _stumbling() -> Pythia:
    """The bug is in the last layer: nobody reads what it makes but the logits of that step."""
    return with_attention(_model(), position=_Stumbling(8), names=f"blocks.{SIZES.n_layers - 1}.attention")


@dataclass(frozen=True)
class _Case:
    """A model, the right verdict, and what to say of each wrong one."""

    name: str
    build: Callable[[], Pythia]
    verdict: str
    advice: dict[str, str]


_SAME = {
    "leak": "Outputs at and after the changed token may change, those before it may not: compare these alone.",
    "cache": "Sums in another order differ in the last bits: allow 1e-4, do not ask for equality.",
}
_LEAK_FIRST = "Its cached steps differ too: they cannot see the future, and so notice the leak. Look for a leak first."
_STEPS = "Give the cache one token at a time: the whole text at once is the same call again."
_CASES = (
    _Case("with RoPE, which is right,", _model, "fine", _SAME),
    _Case("with ALiBi and mask in one matrix, which is right,", lambda: _model(_fused(), None), "fine", _SAME),
    _Case("whose bias knows only the places of keys, which is right,", lambda: _model(_Slope()), "fine", _SAME),
    _Case(
        "with ALiBi and mask in one matrix, rows and columns swapped,",
        lambda: _model(_fused(swapped=True), None), "leak",
        {"fine": "Change a token: does any output *before* it change?", "cache": _LEAK_FIRST},
    ),
    _Case(
        "whose queries see one key too many, the next one,",
        lambda: _model(mask=Pattern("next", lambda q_pos, k_pos: k_pos <= q_pos + 1)), "leak",
        {"fine": "Compare *all* outputs before the changed token, those next to it too.", "cache": _LEAK_FIRST},
    ),
    _Case(
        "whose tokens see all of their block of 4,",
        lambda: _model(mask=causal | Pattern("block", lambda q_pos, k_pos: q_pos // 4 == k_pos // 4)), "leak",
        {
            "fine": "Only some tokens leak, and not the last: change each token in turn, not one alone.",
            "cache": "Some tokens leak, not all, and you changed others: change each token in turn.",
        },
    ),
    _Case(
        "in which one token sees the next one,",
        lambda: _model(mask=causal | Pattern("one", lambda q_pos, k_pos: (q_pos == 6) & (k_pos == 7))), "leak",
        {
            "fine": "A single token leaks: change each token in turn.",
            "cache": "A single token leaks, not that which you changed: change each token in turn.",
        },
    ),
    _Case(
        "that takes a part of the mean over the text from its embeddings,", lambda: _model(_Centred()), "leak",
        {"fine": "No mask is wrong here, and each output changes a little: compare numbers, not the likeliest token.",
         "cache": _LEAK_FIRST},
    ),
    _Case(
        "that counts places anew at each cached step,", lambda: _model(_Restarting(8)), "cache",
        {"fine": f"Compare cached steps with a single call. {_STEPS}", "leak": _SAME["leak"]},
    ),
    _Case(
        "whose cache forgets what is more than 12 places back,", lambda: _model(radius=12), "cache",
        {"fine": f"Compare the outputs of *all* cached steps, up to the last. {_STEPS}", "leak": _SAME["leak"]},
    ),
    _Case(
        "whose weak waves come one place late in cached steps,", lambda: _model(_Late(32, 0.0005)), "cache",
        {"fine": "The difference is small, yet far above rounding: compare numbers, and allow no more than 1e-3.",
         "leak": _SAME["leak"]},
    ),
    _Case(
        "whose tenth cached step asks from the place of the ninth, while all others are right,", _stumbling, "cache",
        {"fine": f"Compare the outputs of *all* cached steps, not of the last. {_STEPS}", "leak": _SAME["leak"]},
    ),
)  # fmt: skip


@checker
def tell_apart(fn: Probe) -> str:
    """Check `fn(model, ids)`: "leak" for a model that sees the future, else "cache" if cached steps differ, or "fine".

    model is a Pythia, ids int64 (T,) one text.
    """
    for case in _CASES:
        for length in LENGTHS:
            ids = torch.randint(SIZES.vocab_size, (length,))
            answer = call(fn, case.build(), ids)
            if not isinstance(answer, str) or answer not in VERDICTS:
                shown = repr(answer) if isinstance(answer, str | bool | int | float) else f"a {type(answer).__name__}"
                raise Wrong(f'Your function returns {shown}; return one of the words "fine", "leak" and "cache".')
            if answer != case.verdict:
                raise Wrong(f'You call a model {case.name} "{answer}". It is "{case.verdict}". {case.advice[answer]}')
    count = {verdict: sum(case.verdict == verdict for case in _CASES) for verdict in VERDICTS}
    return (
        f"Right for {len(_CASES)} models, each on two texts: {count['fine']} are fine, {count['leak']} see the future, "
        f"and the caches of {count['cache']} disagree. None of the bugs stops a program or makes a nan."
    )
