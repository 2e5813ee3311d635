"""ModernBERT: an encoder whose layers look near, but for every third, which sees all; and the head that fills gaps."""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.attention.arguments import AttentionFn
from course_lib.attention.local import local_attention
from course_lib.attention.multi_head import MultiHeadAttention, check_heads
from course_lib.attention.sdpa import attention
from course_lib.attention.unpadded import packed, spread, unpadded_attention
from course_lib.checks import check_above, check_at_least, check_even, check_sizes
from course_lib.init import init_weights
from course_lib.mlp import GatedMLP
from course_lib.models.inputs import check_ids, check_places, places_of
from course_lib.norms import LayerNorm, fused_layer_norm
from course_lib.positions import RotaryPosition
from course_lib.transformer_block import TransformerBlock


@dataclass(frozen=True)
class ModernBertConfig:
    """Sizes of a ModernBert; __post_init__ raises ValueError on what cannot be. The defaults make 2.7 million."""

    vocab_size: int = 4000
    d_model: int = 192
    n_heads: int = 6
    n_layers: int = 6
    d_ff: int | None = None  # None: 3/2 d_model, of each of the two halves of the MLP
    global_every: int | None = 3  # layers 0, 3, 6, ... see all tokens; with 1 every layer does, with None no one
    local_attention: int = 128  # the others see half of it on either side, the last one included
    global_theta: float = 160_000.0  # of RoPE, where distances may be large
    local_theta: float = 10_000.0
    unpad: bool = False  # padding is left out of all but the attention: the same result, sooner
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(vocab_size=self.vocab_size, n_layers=self.n_layers)
        if self.global_every is not None:
            check_sizes(global_every=self.global_every)
        check_at_least("local_attention", self.local_attention, 0)
        if self.d_ff is not None:
            check_sizes(d_ff=self.d_ff)
        check_heads(self.d_model, self.n_heads, self.n_heads, None)
        check_even("d_model / n_heads", self.d_model // self.n_heads)
        check_above("global_theta", self.global_theta, 1)
        check_above("local_theta", self.local_theta, 1)

    @property
    def radius(self) -> int:
        """How many places away a token of a local layer sees."""
        return self.local_attention // 2

    def is_global(self, layer: int) -> bool:
        """Whether the tokens of a layer, counted from 0, see all others."""
        return self.global_every is not None and layer % self.global_every == 0


class ModernBert(nn.Module):
    """ids (B, T) of tokens -> the stream after the last layer, normalised: (B, T, C).

    A pre-norm encoder without biases: embedding, a norm, blocks of attention with RoPE and a GeGLU, a last norm. Local
    layers cost O(T radius). The first block has no norm before its attention: the embedding's stands there already.
    What blocks write begins smaller by sqrt(2 n_layers). With `unpad`, what comes out at padding is 0, and a GPU waits
    to count the tokens. Raises ValueError in forward for ids that are not (B, T) integers of the vocabulary, and a
    key_mask that does not fit.
    Source: Warner et al. 2024, "Smarter, Better, Faster, Longer", section 2.1.
    """

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.embedding_norm = _norm(config)
        self.blocks = nn.ModuleList(_block(config, layer) for layer in range(config.n_layers))
        self.final_norm = _norm(config)
        shrink = 1 / math.sqrt(2 * config.n_layers)
        init_weights(self, config.seed, gains={"blocks.*.attention.out_proj": shrink, "blocks.*.mlp.down": shrink})

    def forward(self, ids: Tensor, *, key_mask: Tensor | None = None) -> Tensor:
        """ids (B, T) -> (B, T, C); key_mask (B, T) is True for tokens that count, not padding at either end."""
        check_ids(ids, self.config.vocab_size)
        places, _ = places_of(ids, self.config.n_layers, None, key_mask, None)
        counted = key_mask if self.config.unpad else None
        x = self.embedding(ids if counted is None else packed(ids, counted))  # (B, T, C) or (1, N, C)
        x = self.embedding_norm(x)
        for block in self.blocks:
            x = block(x, places)
        x = self.final_norm(x)
        return x if counted is None else spread(x, counted)  # (B, T, C)


class ModernBertForMaskedLM(nn.Module):
    """A masked language model: ids (B, T), some of them hidden, -> logits (B, T, V) of what stands at each place.

    A ModernBert, and a head: linear without bias, GELU, norm, and the embedding again (tied) with a bias a token.
    Raises ValueError as ModernBert does. Source: Warner et al. 2024, section 2.1, and `transformers`' ModernBERT.
    """

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ModernBert(config)
        self.head = nn.Linear(config.d_model, config.d_model, bias=False)
        self.head_norm = _norm(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        init_weights(self.head, config.seed)

    def forward(self, ids: Tensor, *, at: Tensor | None = None, key_mask: Tensor | None = None) -> Tensor:
        """ids (B, T) -> logits (B, T, V), or with places `at` (B, M) only those: (B, M, V).

        key_mask (B, T) is True for tokens that count, not padding.
        """
        x = self.encoder(ids, key_mask=key_mask)  # (B, T, C)
        if at is not None:
            check_places(at, *ids.shape)
            x = x.gather(1, at.unsqueeze(-1).expand(-1, -1, x.shape[-1]))  # (B, M, C)
        return F.linear(self.head_norm(F.gelu(self.head(x))), self.encoder.embedding.weight, self.bias)


def _norm(config: ModernBertConfig) -> LayerNorm:
    return LayerNorm(config.d_model, bias=False, norm_fn=fused_layer_norm)


def _block(config: ModernBertConfig, layer: int) -> TransformerBlock:
    see_all = config.is_global(layer)
    theta = config.global_theta if see_all else config.local_theta
    attend: AttentionFn = attention if see_all else partial(local_attention, radius=config.radius)
    return TransformerBlock(
        MultiHeadAttention(
            config.d_model,
            config.n_heads,
            bias=False,
            position=RotaryPosition(config.d_model // config.n_heads, theta),
            attention_fn=partial(unpadded_attention, attention_fn=attend) if config.unpad else attend,
        ),
        GatedMLP(config.d_model, config.d_ff or 3 * config.d_model // 2, activation="gelu"),
        (nn.Identity() if layer == 0 else _norm(config), _norm(config)),
    )
