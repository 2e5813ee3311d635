"""Absolute positions: a vector for each place in the sequence, added to the token's embedding."""

import torch
from torch import Tensor, nn

from course_lib.checks import check_even, check_sizes, on_host
from course_lib.positions.base import Position, check_positions

# The scale that makes sinusoids as large as the embeddings of `init_weights`, 0.02. Larger ones drown the tokens, and
# training stands still.
AS_EMBEDDINGS = 0.02 * 2**0.5


def sinusoids(pos: Tensor, d_model: int) -> Tensor:
    """Waves of d_model / 2 lengths, from 2π to almost 2π · 10000, sines in the first half and cosines in the second.

    pos (..., T) integers -> (..., T, d_model) float32: angles of a long sequence need it, whatever the model's type.
    The paper interleaves sines and cosines, which is the same up to the order of channels. Raises ValueError for a
    d_model that is odd or below 2. Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.5.
    """
    check_even("d_model", d_model)
    wave = torch.arange(0, d_model, 2, device=pos.device, dtype=torch.float32)
    angle = pos.unsqueeze(-1).float() / 10000 ** (wave / d_model)  # (..., T, d_model / 2)
    return torch.cat([angle.sin(), angle.cos()], -1)


def check_width(x: Tensor, d_model: int) -> None:
    """Raise ValueError unless x is (B, T, d_model)."""
    if x.ndim != 3 or x.shape[-1] != d_model:
        raise ValueError(f"x has shape {tuple(x.shape)}; needed is (B, T, {d_model})")


class SinusoidalPosition(Position):
    """Adds `scale` times `sinusoids` to the stream: nothing is learned, and there is no last position.

    Their root mean square is 0.71, so that embeddings which start smaller are drowned: choose `scale` to fit them.
    Raises ValueError for a d_model that is odd or below 2.
    """

    def __init__(self, d_model: int, scale: float = 1.0) -> None:
        super().__init__()
        sinusoids(torch.zeros(0), d_model)  # refuses a width that cannot be
        self.d_model, self.scale = d_model, scale

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """x (B, T, C), pos (T,) or (B, T) -> (B, T, C)."""
        check_width(x, self.d_model)
        check_positions("pos", pos, x.shape[1], x.shape[0])
        return x + (self.scale * sinusoids(pos, self.d_model)).to(x.dtype)


class LearnedPosition(Position):
    """Adds a learned vector for each place from 0 to max_positions - 1; beyond them there is none.

    A position outside raises ValueError where it is on the CPU; on a GPU torch's own device-side assertion stops the
    program, since asking here would make the host wait. Raises ValueError for sizes below 1.
    Source: Gehring et al. 2017, "Convolutional Sequence to Sequence Learning", section 3.1; GPT-2 and BERT use it.
    """

    def __init__(self, max_positions: int, d_model: int) -> None:
        super().__init__()
        check_sizes(max_positions=max_positions, d_model=d_model)
        self.embedding = nn.Embedding(max_positions, d_model)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """x (B, T, C), pos (T,) or (B, T) -> (B, T, C)."""
        check_width(x, self.embedding.embedding_dim)
        check_positions("pos", pos, x.shape[1], x.shape[0])
        last = self.embedding.num_embeddings - 1
        if on_host(pos) and pos.numel() and not (int(pos.min()) >= 0 and int(pos.max()) <= last):
            raise ValueError(f"pos goes from {int(pos.min())} to {int(pos.max())}; learned are 0 to {last}")
        return x + self.embedding(pos)
