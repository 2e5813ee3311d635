"""One attention head and nothing else: it looks words up in a list of pairs that it is given."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.attention import AttentionFn, MultiHeadAttention, attention
from course_lib.checks import check_above, check_at_least
from course_lib.features import record, record_attention
from course_lib.init import init_weights
from course_lib.norms import LayerNorm


@dataclass(frozen=True)
class LookupConfig:
    """Sizes of a Lookup; __post_init__ raises ValueError for what is no whole number of 1 or more, or a start <= 0."""

    n_words: int  # words that can be asked for
    n_answers: int
    d_model: int = 64
    head_dim: int = 64
    start: float = 1.0  # the first weights of queries and keys are this many times as large as usual
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_words", "n_answers", "d_model", "head_dim"):
            check_at_least(name, getattr(self, name), 1)
        check_above("start", self.start, 0)


class Lookup(nn.Module):
    """Answer each question with the help of S pairs (word, answer) in any order: logits over all answers.

    questions (B, T), words (B, S), answers (B, S), all ids -> (B, T, n_answers). A question is the embedding of its
    word, a pair the sum of its two embeddings; both are normalised, and one head reads pairs for questions. There is
    no skip and no MLP: what is in a pair can reach the output only by an attention weight. `attention_fn` is any
    `AttentionFn`. Raises ValueError in forward for ids of other shapes.
    """

    def __init__(self, config: LookupConfig, attention_fn: AttentionFn = attention) -> None:
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.n_words, config.d_model)
        self.answer = nn.Embedding(config.n_answers, config.d_model)
        self.question_norm, self.pair_norm = LayerNorm(config.d_model), LayerNorm(config.d_model)
        self.attention = MultiHeadAttention(
            config.d_model, 1, head_dim=config.head_dim, bias=False, attention_fn=attention_fn
        )
        self.unembedding = nn.Linear(config.d_model, config.n_answers, bias=False)
        gains = {"attention.q_proj": config.start, "attention.k_proj": config.start}
        init_weights(self, config.seed, gains=gains)

    def forward(self, questions: Tensor, words: Tensor, answers: Tensor) -> Tensor:
        """questions (B, T), words (B, S), answers (B, S) -> logits (B, T, n_answers)."""
        if questions.ndim != 2 or words.ndim != 2 or words.shape != answers.shape or len(questions) != len(words):
            raise ValueError(
                f"questions, words, answers have shapes {tuple(questions.shape)}, {tuple(words.shape)}, "
                f"{tuple(answers.shape)}; needed are (B, T), (B, S), (B, S)"
            )
        x = self.question_norm(self.word(questions))  # (B, T, C)
        pairs = self.pair_norm(self.word(words) + self.answer(answers))  # (B, S, C)
        return self.unembedding(self.attention(x, context=pairs))


class Inside(NamedTuple):
    """What the head works with: q (B, 1, T, D), k and v (B, 1, S, D), weights (B, 1, T, S)."""

    q: Tensor
    k: Tensor
    v: Tensor
    weights: Tensor


@torch.no_grad()
def inside(model: Lookup, questions: Tensor, words: Tensor, answers: Tensor) -> Inside:
    """Queries, keys, values and weights of the model's head. Raises ValueError as `record_attention` does."""
    with record(model, "attention.*_proj") as seen, record_attention(model) as maps:
        model(questions, words, answers)
    q, k, v = (seen[f"attention.{name}_proj"].unsqueeze(1) for name in "qkv")  # one head
    return Inside(q, k, v, maps["attention"])


LookupBatch = tuple[Tensor, Tensor, Tensor, Tensor]


def lookup_loss(model: nn.Module, batch: LookupBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross entropy in nats and accuracy: batch is questions, words, answers, and the right answers (B, T)."""
    questions, words, answers, right = batch
    logits = model(questions, words, answers)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), right.flatten())
    return loss, {"accuracy": (logits.argmax(-1) == right).float().mean()}


def right_cells(questions: Tensor, words: Tensor) -> Tensor:
    """Where each question's word stands among the pairs: (B, T), (B, S) -> bool (B, T, S), rows are questions."""
    return questions.unsqueeze(-1) == words.unsqueeze(-2)


def right_mass(weights: Tensor, questions: Tensor, words: Tensor) -> Tensor:
    """Mean weight on the right cell, 0 to 1: weights (B, 1, T, S) of a head; an even spread gives 1/S."""
    return (weights[:, 0] * right_cells(questions, words)).sum(-1).mean()
