"""Additive attention: a small network, not a dot product, scores each query with each key."""

from torch import Tensor, nn

from course_lib.attention.arguments import Mask, prepare
from course_lib.attention.sdpa import masked_softmax, repeat_heads
from course_lib.checks import check_sizes
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
        check_sizes(head_dim=head_dim, hidden=hidden)
        self.of_query = nn.Linear(head_dim, hidden, bias=False)
        self.of_key = nn.Linear(head_dim, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, mask: Mask | None = None, key_mask: Tensor | None = None,
        position: Position | None = None, q_pos: Tensor | None = None, k_pos: Tensor | None = None,
        scale: float | None = None, return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        """As `attention(impl="explicit")`: (B, H, T, Dv), or with it the weights (B, H, T, S)."""
        q, k, v, allowed, bias, score = prepare(q, k, v, mask, key_mask, position, q_pos, k_pos)
        if q.shape[-1] != self.of_query.in_features:
            raise ValueError(f"q has shape {tuple(q.shape)}; needed is a width of head_dim={self.of_query.in_features}")
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])

        queries, keys = self.of_query(q).unsqueeze(3), self.of_key(k).unsqueeze(2)  # (B, H, T, 1, h), (B, H, 1, S, h)
        logits = self.score((queries + keys).tanh()).squeeze(-1)  # (B, H, T, S)
        logits = (1.0 if scale is None else scale) * (logits if score is None else logits + score)
        logits = logits if bias is None else logits + bias
        weights = masked_softmax(logits, allowed).to(v.dtype)  # (B, H, T, S)
        y = weights @ v  # (B, H, T, Dv)
        return (y, weights) if return_weights else y
