"""The smallest language models: guess the next token from the current one, by counting and by a network."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.checks import check_at_least, check_token_ids, kind_of
from course_lib.init import init_weights
from course_lib.models.inputs import check_ids, check_places
from course_lib.models.residual_mlp import ResidualBlock, ResidualMLPConfig
from course_lib.norms import LayerNorm


def count_bigrams(stream: Tensor, vocab_size: int) -> Tensor:
    """How often each token follows each other one: token ids (N,) -> counts (vocab_size, vocab_size), float32.

    Row: the current token; column: the next. Raises ValueError for a stream of more axes, of fewer than two tokens, of
    another dtype than int64 or int32, or with a token outside 0..vocab_size - 1.
    """
    check_at_least("vocab_size", vocab_size, 1)
    check_token_ids("stream", stream)
    if stream.ndim != 1 or len(stream) < 2:
        raise ValueError(f"stream has shape {tuple(stream.shape)}; needed is (N,) with N of 2 or more")
    # On a GPU too: a pair of other tokens would be counted in the cell of another one.
    check_token_ids("stream", torch.stack(stream.aminmax()).cpu(), vocab_size)
    pairs = stream[:-1].long() * vocab_size + stream[1:]
    return torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size).float()


class CountedBigram(nn.Module):
    """A language model that is a table: p(next | token) = w · row of counts + (1 - w) · how frequent `next` is at all.

    counts (V, V) from `count_bigrams`. The weight w says how far a row is trusted. A number from 0 to 1 is the same for
    all tokens (Jelinek and Mercer 1980); None, the default, takes n / (n + k) for a token seen n times with k different
    followers (Witten and Bell 1991; both in Chen and Goodman 1999, "An empirical study of smoothing techniques for
    language modeling", section 2). A frequency gets 1 added to each count, so that no token is impossible.
    Raises ValueError for counts that are not square or below 0, or a weight outside 0..1.
    """

    frequency: Tensor  # (V,)
    row: Tensor  # (V, V)
    trust: Tensor  # (V,)

    def __init__(self, counts: Tensor, weight: float | None = None) -> None:
        super().__init__()
        if not isinstance(counts, Tensor) or counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
            raise ValueError(f"counts is {kind_of(counts)}; needed is (V, V)")
        if not (counts >= 0).all():
            raise ValueError(f"counts has {counts.min().item()} as its smallest; it must be 0 or more")
        if weight is not None and not 0 <= weight <= 1:
            raise ValueError(f"weight={weight}; allowed is 0 to 1, or None")
        counts = counts.to(torch.promote_types(counts.dtype, torch.float32))  # a weight of 0.3 as an integer is 0
        seen, followers = counts.sum(1), (counts > 0).sum(1)  # (V,), (V,)
        trust = seen / (seen + followers).clamp(min=1) if weight is None else torch.full_like(seen, weight)
        frequency = counts.sum(0) + 1
        self.register_buffer("frequency", frequency / frequency.sum())
        self.register_buffer("row", counts / torch.where(seen > 0, seen, 1).unsqueeze(1))
        self.register_buffer("trust", torch.where(seen > 0, trust, 0))  # a row without counts says nothing

    def forward(self, ids: Tensor) -> Tensor:
        """ids (..., T) -> log p of each next token, (..., T, V): logits that are their own log-softmax; -inf: p = 0."""
        check_token_ids("ids", ids, len(self.trust))
        trust = self.trust[ids].unsqueeze(-1)  # (..., T, 1)
        return torch.log(trust * self.row[ids] + (1 - trust) * self.frequency)


class KneserNeyBigram(CountedBigram):
    """A stronger smoothing of the same counts: interpolated Kneser-Ney with one discount D.

    Each count gives up D, estimated as n1 / (n1 + 2 n2) from the numbers of pairs seen once and twice. What the row
    gives up goes to tokens by the number of *different* tokens that they follow, not by how often they come: "States"
    is frequent, but only after "United". counts (V, V) as above, at least one pair seen once.
    Sources: Kneser and Ney 1995, "Improved backing-off for m-gram language modeling"; Chen and Goodman 1999, section 2.
    """

    def __init__(self, counts: Tensor) -> None:
        super().__init__(counts)
        counts = counts.to(self.row)
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        if once == 0:
            raise ValueError("counts has no pair that was seen once; the discount cannot be estimated from it")
        discount = once.to(counts) / (once + 2 * twice).to(counts)
        seen, followers = counts.sum(1), (counts > 0).sum(1)  # (V,), (V,)
        kept = seen - discount * followers  # (V,): counts of a row that remain
        before = (counts > 0).sum(0) + 1  # (V,): different tokens that each one follows; 1, so that none is impossible
        self.row = (counts - discount).clamp(min=0) / torch.where(kept > 0, kept, 1).unsqueeze(1)
        self.trust = torch.where(kept > 0, kept / seen.clamp(min=1), 0)
        self.frequency = before.to(counts) / before.sum().to(counts)


class TwoSidedBigram(nn.Module):
    """Both neighbours and a table: log P(token | before) + log P(after | token), a masked language model that counts.

    P is `KneserNeyBigram` of counts (V, V). ids (B, T) and places `at` (B, M) -> logits (B, M, V). The last token of a
    row has only the one before it, the first only the one after. What stands at `at` itself is not looked at. Raises
    ValueError as KneserNeyBigram does, for ids outside the vocabulary, and for places outside the text.
    """

    follows: Tensor  # (V, V): log P(column | row)

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self.register_buffer("follows", KneserNeyBigram(counts)(torch.arange(len(counts), device=counts.device)))

    def forward(self, ids: Tensor, *, at: Tensor) -> Tensor:
        """ids (B, T), at (B, M) -> logits (B, M, V)."""
        check_ids(ids, len(self.follows))
        check_places(at, *ids.shape)
        length = ids.shape[1]
        before, after = (ids.gather(1, (at + d).clamp(0, length - 1)) for d in (-1, 1))  # (B, M) each
        first, last = (at == 0).unsqueeze(-1), (at == length - 1).unsqueeze(-1)  # (B, M, 1)
        said = self.follows[before].masked_fill(first, 0.0)
        return said + self.follows.T[after].masked_fill(last, 0.0)  # (B, M, V)


@dataclass(frozen=True)
class BigramConfig:
    """Sizes of a BigramNetwork; __post_init__ raises ValueError for one that is not a whole number of 1 or more."""

    vocab_size: int
    d_model: int = 64
    d_ff: int = 256
    n_layers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "d_ff", "n_layers"):
            check_at_least(name, getattr(self, name), 1)


class BigramNetwork(nn.Module):
    """A GPT without attention: embedding, a residual stream with MLP blocks, norm, unembedding.

    ids (..., T) -> logits (..., T, V). Each position is computed on its own, so it can know no more than a bigram.
    Raises ValueError for ids that are not int64 or int32, or (on a CPU) not in the vocabulary.
    """

    def __init__(self, config: BigramConfig) -> None:
        super().__init__()
        self.config = config
        block = ResidualMLPConfig(d_model=config.d_model, d_ff=config.d_ff)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(ResidualBlock(block) for _ in range(config.n_layers))
        self.norm = LayerNorm(config.d_model)
        self.unembedding = nn.Linear(config.d_model, config.vocab_size)
        init_weights(self, config.seed)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (..., T) -> logits (..., T, V)."""
        check_token_ids("ids", ids, self.config.vocab_size)
        x = self.embedding(ids)  # (..., T, C)
        for block in self.blocks:
            x = block(x)
        return self.unembedding(self.norm(x))  # (..., T, V)


def counted_loss(model: nn.Module, counts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean next-token loss, in nats, of a bigram model over a whole corpus at once: counts (V, V) stand for its pairs.

    The model is asked about each token once, and its answers are weighted by how often each pair was seen: the same
    value as the mean over all tokens of the corpus, at the cost of V tokens. Raises ValueError for counts that are not
    the (V, V) of the model.
    """
    if not isinstance(counts, Tensor) or counts.ndim != 2:
        raise ValueError(f"counts is {kind_of(counts)}; needed is (V, V)")
    every_token = torch.arange(len(counts), device=counts.device)
    try:
        logits = model(every_token)  # (V, V)
    except ValueError as error:
        raise ValueError(f"counts has shape {tuple(counts.shape)}; the model refuses its tokens: {error}") from None
    if logits.shape != counts.shape:
        raise ValueError(f"counts has shape {tuple(counts.shape)}; the model's logits need {tuple(logits.shape)}")
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return -(counts * log_p).sum() / counts.sum(), {}
