"""Multi-head attention with a sparse pattern that has global tokens."""

from functools import partial

from torch import Tensor, nn

from course_lib.attention.global_local import global_local_attention
from course_lib.attention.masks import Pattern
from course_lib.attention.multi_head import MultiHeadAttention
from course_lib.checks import check_at_least, kind_of
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
        self.register_buffer("blocks", blocks, persistent=False)  # drawn from a seed: nothing to save
        self.global_proj = nn.ModuleList(
            nn.Linear(d_model, n_heads * self.head_dim, bias=bias) for _ in range(3 if separate_global else 0)
        )  # of queries, keys, values

    def forward(  # type: ignore[override]
        self, x: Tensor, *, key_mask: Tensor | None = None, q_pos: Tensor | None = None, global_mask: Tensor,
    ) -> Tensor:  # fmt: skip
        """x (B, T, C) -> (B, T, C); key_mask (B, T), q_pos (T,) or (B, T), global_mask (T,) or (B, T)."""
        if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[-1] != self.d_model:
            kind = f"has shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"is {kind_of(x)}"
            raise ValueError(f"x {kind}; needed is (B, tokens, {self.d_model})")
        q, k, v = (self._heads(project(x), self.n_heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        others = tuple(self._heads(project(x), self.n_heads) for project in self.global_proj)
        y = self.attention_fn(  # type: ignore[call-arg]
            q, k, v, mask=self.mask, key_mask=key_mask, position=self.position, q_pos=q_pos, k_pos=q_pos,
            global_mask=global_mask, blocks=self.blocks, global_qkv=others or None,
        )  # fmt: skip  # (B, H, T, D)
        return self.out_proj(y.transpose(1, 2).flatten(2))
