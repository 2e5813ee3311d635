"""The four places where a positional scheme can act. Attention modules, kernels and caches know these and no more."""

import torch
from torch import Tensor, nn


class Position(nn.Module):
    """A positional scheme; this one is "none": each hook leaves things as they are.

    A scheme overrides the hooks that it needs. All take explicit integer positions, (T,) or one row for each sequence,
    (B, T); so a cached step at offset 7, or a block of a long sequence, is told its true places. Logits are
    `scale * (q·k + score) + bias`. Example, a scheme that dislikes distance:

        class Distance(Position):
            def bias(self, q_pos, k_pos):
                far = (q_pos.unsqueeze(-1) - k_pos.unsqueeze(-2)).abs()  # (T, S) or (B, T, S)
                return -far.unsqueeze(-3)  # one head for all

        attention(q, k, v, position=Distance(), q_pos=torch.arange(4), k_pos=torch.arange(4))
    """

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """Act on the stream, once, before the first block: x (B, T, C) -> (B, T, C). Sinusoidal, learned."""
        return x

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor, k_pos: Tensor) -> tuple[Tensor, Tensor]:
        """Act on queries (B, H, T, D) and keys (B, Hkv, S, D) before they meet; keys are cached after it. RoPE."""
        return q, k

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor | None:
        """Add to the scaled logits: (H, T, S) or (B, H, T, S), H may be 1; None adds nothing. ALiBi, T5."""
        return None

    def score(self, q: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor | None:
        """Add to q·k before the scale: (B, H, T, S), from the queries (B, H, T, D); None adds nothing. Shaw."""
        return None


class Unrotated(Position):
    """A scheme whose rotation was done already, when the keys went into the cache; the other hooks remain."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.scheme = position

    def bias(self, q_pos: Tensor, k_pos: Tensor) -> Tensor | None:
        """That of the scheme."""
        return self.scheme.bias(q_pos, k_pos)

    def score(self, q: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor | None:
        """That of the scheme."""
        return self.scheme.score(q, q_pos, k_pos)


def check_positions(name: str, pos: Tensor, length: int | None = None, batch: int | None = None) -> None:
    """Raise ValueError unless `pos` is a tensor of integers, (length,) or (batch, length); None is any number."""
    if not isinstance(pos, Tensor) or pos.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} is {getattr(pos, 'dtype', type(pos).__name__)}; needed is an int64 or int32 tensor")
    fits = pos.ndim in (1, 2) and length in (None, pos.shape[-1])
    if not fits or (pos.ndim == 2 and batch is not None and len(pos) not in (1, batch)):
        tokens, rows = ("T" if length is None else length), ("B" if batch is None else batch)
        raise ValueError(f"{name} has shape {tuple(pos.shape)}; needed is ({tokens},) or ({rows}, {tokens})")


def distances(q_pos: Tensor, k_pos: Tensor) -> Tensor:
    """k - q of each pair, negative for keys before the query: q_pos (T,) or (B, T), k_pos alike -> (T, S) or (B, T, S).

    Raises ValueError for what is not integers of this shape, or different B.
    """
    check_positions("q_pos", q_pos)
    check_positions("k_pos", k_pos)
    if q_pos.ndim == k_pos.ndim == 2 and 1 != len(q_pos) != len(k_pos) != 1:
        raise ValueError(f"q_pos has shape {tuple(q_pos.shape)}, k_pos {tuple(k_pos.shape)}; as many rows are needed")
    return k_pos.unsqueeze(-2) - q_pos.unsqueeze(-1)
