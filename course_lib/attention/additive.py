"""Additive attention: a small network, not a dot product, scores each query with each key."""

from typing import Any

from torch import Tensor, nn

from course_lib.attention.arguments import Mask, prepare
from course_lib.attention.sdpa import repeat_heads, weighted_values
from course_lib.positions.base import Position


class AdditiveAttention(nn.Module):
    """score(q, k) = w · tanh(W_q q + W_k k), then softmax and average as in `attention`.

    A module, since it has weights of its own, shared by all heads; called like any `AttentionFn`, so that it can be an
    `attention_fn`. It holds (B, H, T, S, hidden) numbers in between, `hidden` times as many as dot products do. `scale`
    None is 1: tanh keeps the scores small. Raises ValueError for widths below 1 and as `attention` does.
    Source: Bahdanau, Cho, Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and Translate",
    section 3.1 and appendix A.1.2.
    """

    def __init__(self, head_dim: int, hidden: int) -> None:
        super().__init__()
        for name, value in (("head_dim", head_dim), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name}={value}; it must be at least 1")
        self.of_query = nn.Linear(head_dim, hidden, bias=False)
        self.of_key = nn.Linear(head_dim, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
        position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
        scale: float | None = None, return_weights: bool = False,
    ) -> Any:  # fmt: skip
        """As `attention(impl="explicit")`: (B, H, T, Dv), or with it the weights (B, H, T, S)."""
        ready = prepare(q, k, v, mask, key_mask, position, q_pos, k_pos)
        if q.shape[-1] != self.of_query.in_features:
            raise ValueError(f"q has shape {tuple(q.shape)}; needed is a width of head_dim={self.of_query.in_features}")
        queries = self.of_query(ready.q).unsqueeze(3)  # (B, H, T, 1, hidden)
        keys = self.of_key(repeat_heads(ready.k, q.shape[1])).unsqueeze(2)  # (B, H, 1, S, hidden)
        scores = self.score((queries + keys).tanh()).squeeze(-1)  # (B, H, T, S)
        output, weights = weighted_values(scores, v, ready, 1.0 if scale is None else scale)
        return (output, weights) if return_weights else output
