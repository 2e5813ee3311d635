"""Multi-head attention with a sparse pattern that has global tokens."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from course_lib.attention.global_local import global_local_attention
from course_lib.attention.kv_cache import Cache
from course_lib.attention.masks import Pattern
from course_lib.attention.multi_head import MultiHeadAttention, check_stream
from course_lib.attention.places import WHOLE_TEXT, Places
from course_lib.checks import check_at_least
from course_lib.positions.base import Position


class GlobalLocalAttention(MultiHeadAttention):
    """Multi-head attention with a window, global tokens and, with `blocks`, random blocks of keys.

    x (B, T, C) -> (B, T, C). Sizes as in `MultiHeadAttention`; `radius` and `blocks` (kept as a buffer) as in
    `global_local_attention`. `separate_global` gives global tokens projections of their own, as Longformer does.
    Raises ValueError as those two.
    """

    blocks: Tensor | None

    def __init__(
        self, d_model: int, n_heads: int, radius: int, *, blocks: Tensor | None = None, separate_global: bool = False,
        bias: bool = True, mask: Pattern | None = None, position: Position | None = None,
    ) -> None:  # fmt: skip
        check_at_least("radius", radius, 0)
        super().__init__(
            d_model, n_heads, bias=bias, mask=mask, position=position,
            attention_fn=partial(global_local_attention, radius=radius),
        )  # fmt: skip
        self.radius = radius
        self.register_buffer("blocks", blocks, persistent=False)  # drawn from a seed: nothing to save
        self.global_proj = nn.ModuleList(
            nn.Linear(d_model, n_heads * self.head_dim, bias=bias) for _ in range(3 if separate_global else 0)
        )  # of queries, keys, values

    def forward(
        self, x: Tensor, places: Places = WHOLE_TEXT, *, context: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """x (B, T, C) -> (B, T, C); `places` must have a global_mask, and there is neither context nor cache."""
        check_stream("x", x, self.d_model)
        if context is not None or cache is not None:
            raise ValueError("context, cache: global tokens need a whole text, the same on both sides")
        q, k, v = (self._heads(project(x), self.n_heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        others = tuple(self._heads(project(x), self.n_heads) for project in self.global_proj)
        fn: Callable[..., Tensor] = self.attention_fn
        y = fn(
            q, k, v, mask=self.mask, key_mask=places.key_mask, position=self.position, q_pos=places.pos,
            k_pos=places.pos, global_mask=places.global_mask, n_global=places.n_global, blocks=self.blocks,
            global_qkv=others or None,
        )  # fmt: skip  # (B, H, T, D)
        return self.out_proj(y.transpose(1, 2).flatten(2))
