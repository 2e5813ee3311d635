"""Learned relative positions: a vector for each distance (Shaw), or a number for each range of distances (T5)."""

import math

import torch
from torch import Tensor, nn

from course_lib.checks import check_sizes
from course_lib.positions.base import Position, check_positions, distances


class ShawPosition(Position):
    """Adds to q·k the dot product of the query with a learned vector of the distance, one table for all heads.

    Distances k - q beyond `max_distance` are counted as it. Not `bidirectional`, as under a causal mask, there are
    vectors for keys before the query only, and those after it share the one of distance 0. Keys alone have vectors, as
    in most programs since; the paper has them for values too, and finds those of little use. Raises ValueError for
    sizes below 1.
    Source: Shaw, Uszkoreit, Vaswani 2018, "Self-Attention with Relative Position Representations", section 3.2.
    """

    def __init__(self, head_dim: int, max_distance: int, *, bidirectional: bool = True) -> None:
        super().__init__()
        check_sizes(head_dim=head_dim, max_distance=max_distance)
        self.max_distance, self.bidirectional = max_distance, bidirectional
        self.embedding = nn.Embedding((1 + bidirectional) * max_distance + 1, head_dim)

    def row(self, distance: Tensor) -> Tensor:
        """Which vector belongs to a distance k - q: integers -> rows of the table, of the same shape."""
        last = self.max_distance if self.bidirectional else 0
        return distance.clamp(-self.max_distance, last) + self.max_distance

    def score(self, q: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """q (B, H, T, D), q_pos (T,) or (B, T), k_pos (S,) or (B, S) -> (B, H, T, S)."""
        check_positions("q_pos", q_pos, q.shape[-2], q.shape[0])
        if q.shape[-1] != self.embedding.embedding_dim:
            raise ValueError(f"q is {q.shape[-1]} wide; the vectors have head_dim={self.embedding.embedding_dim}")
        # Each query meets each vector once; a (T, S, D) tensor of vectors would be the text's length times larger.
        dots = q @ self.embedding.weight.to(q.dtype).T  # (B, H, T, rows)
        row = self.row(distances(q_pos, k_pos)).long().unsqueeze(-3)  # (1, T, S) or (B, 1, T, S)
        return dots.gather(-1, row.expand(*q.shape[:-1], -1))


def t5_buckets(distance: Tensor, n_buckets: int = 32, max_distance: int = 128, bidirectional: bool = True) -> Tensor:
    """The bucket of each distance k - q: integers of any shape -> the same shape, from 0 to n_buckets - 1.

    Half of the buckets are single distances, the other half ranges that grow to `max_distance`; all beyond share the
    last. If `bidirectional`, keys after the query have the upper half of the buckets, else they count as distance 0.
    Raises ValueError for too few buckets (4 if bidirectional, else 2), or a max_distance that leaves nothing to range.
    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1, and its published code.
    """
    sides = 2 if bidirectional else 1
    if n_buckets < 2 * sides or n_buckets % sides:
        raise ValueError(f"n_buckets={n_buckets}; needed are {2 * sides} or more, even if bidirectional")
    own = n_buckets // sides
    exact = own // 2
    if max_distance <= exact:
        raise ValueError(f"max_distance={max_distance}; it must be above {exact}, where the single distances end")
    upper = own * (distance > 0) if bidirectional else torch.zeros_like(distance)
    far = distance.abs() if bidirectional else (-distance).clamp(min=0)
    steps = (far.clamp(min=1).float() / exact).log() / math.log(max_distance / exact) * (own - exact)
    ranged = (exact + steps.long()).clamp(max=own - 1)
    return upper + torch.where(far < exact, far, ranged)


class T5Position(Position):
    """Adds to the logits a learned number for each head and bucket of distances; the layers of a model share it.

    n_buckets, max_distance and bidirectional as in `t5_buckets`. T5 itself does not scale its dot products; that is the
    attention's affair, here as everywhere. Raises ValueError as `t5_buckets`, and for n_heads below 1.
    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1.
    """

    def __init__(
        self, n_heads: int, n_buckets: int = 32, max_distance: int = 128, *, bidirectional: bool = True
    ) -> None:
        super().__init__()
        check_sizes(n_heads=n_heads)
        t5_buckets(torch.zeros(1, dtype=torch.int64), n_buckets, max_distance, bidirectional)  # refuses what cannot be
        self.n_buckets, self.max_distance, self.bidirectional = n_buckets, max_distance, bidirectional
        self.embedding = nn.Embedding(n_buckets, n_heads)

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """q_pos (T,) or (B, T), k_pos (S,) or (B, S) -> (H, T, S) or (B, H, T, S)."""
        bucket = t5_buckets(distances(q_pos, k_pos), self.n_buckets, self.max_distance, self.bidirectional)
        return self.embedding(bucket).movedim(-1, -3)  # (..., T, S, H) -> (..., H, T, S)
