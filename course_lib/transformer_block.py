"""One layer of a transformer: attention between the tokens, then an MLP in each."""

from torch import Tensor, nn

from course_lib.attention.kv_cache import Cache
from course_lib.attention.multi_head import MultiHeadAttention
from course_lib.attention.places import WHOLE_TEXT, Places
from course_lib.checks import check_choice

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
        check_choice("placement", placement, PLACEMENTS)
        if len(norms) != 2:
            raise ValueError(f"norms has {len(norms)} entries; needed are two, of the attention and of the MLP")
        self.placement = placement
        self.attention, self.mlp = attention, mlp
        self.attention_norm, self.mlp_norm = norms
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, places: Places = WHOLE_TEXT, *, cache: Cache | None = None) -> Tensor:
        """x (B, T, C) -> (B, T, C); `places` and `cache` go to the attention as they are."""
        if self.placement == "pre":
            x = x + self.dropout(self.attention(self.attention_norm(x), places, cache=cache))
            return x + self.dropout(self.mlp(self.mlp_norm(x)))
        if self.placement == "parallel":
            written = self.dropout(self.attention(self.attention_norm(x), places, cache=cache))
            return x + written + self.dropout(self.mlp(self.mlp_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, places, cache=cache)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))
