"""One layer of a transformer: attention between the tokens, then an MLP in each."""

from typing import Any

from torch import Tensor, nn

from course_lib.attention.kv_cache import Cache
from course_lib.attention.multi_head import MultiHeadAttention

PLACEMENTS = ("pre", "post", "parallel")


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) for "pre"; norm(x + f(x)) for both parts with "post".

    "parallel" is x + attention(norm(x)) + mlp(norm(x)), each with its own norm: both parts read the same stream.
    x (B, T, C) -> (B, T, C). The parts are built outside; `norms` are two modules (B, T, C) -> (B, T, C). `dropout`
    acts on what each part adds to the stream. Raises ValueError for an unknown placement, or not exactly two norms.
    Sources: Vaswani et al. 2017, section 3.1 (post); Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners", section 2.3 (pre); Xiong et al. 2020 compares them; Black et al. 2022, "GPT-NeoX-20B", section 2.1
    (parallel, which Wang and Komatsuzaki's GPT-J introduced).
    """

    def __init__(
        self, attention: MultiHeadAttention, mlp: nn.Module, norms: tuple[nn.Module, nn.Module], *,
        placement: str = "pre", dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if placement not in PLACEMENTS:
            raise ValueError(f"placement={placement!r}; allowed are {', '.join(PLACEMENTS)}")
        if len(norms) != 2:
            raise ValueError(f"norms has {len(norms)} entries; needed are two, of the attention and of the MLP")
        self.placement = placement
        self.attention, self.mlp = attention, mlp
        self.attention_norm, self.mlp_norm = norms
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, *, key_mask: Tensor | None = None, q_pos: Tensor | None = None, cache: Cache | None = None,
        global_mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, T, C) -> (B, T, C); arguments as in `MultiHeadAttention`, global_mask as in `GlobalLocalAttention`."""
        arguments: dict[str, Any] = {"key_mask": key_mask, "q_pos": q_pos, "cache": cache, "global_mask": global_mask}
        given = {name: value for name, value in arguments.items() if value is not None}  # each takes what it knows
        if self.placement == "pre":
            x = x + self.dropout(self.attention(self.attention_norm(x), **given))
            return x + self.dropout(self.mlp(self.mlp_norm(x)))
        if self.placement == "parallel":
            written = self.dropout(self.attention(self.attention_norm(x), **given))
            return x + written + self.dropout(self.mlp(self.mlp_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, **given)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))
