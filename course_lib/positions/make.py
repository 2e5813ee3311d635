"""One function that makes any scheme by its name, for the models' configs."""

from collections.abc import Callable

from course_lib.checks import check_choice
from course_lib.positions.absolute import AS_EMBEDDINGS, LearnedPosition, SinusoidalPosition
from course_lib.positions.alibi import UNIFORM_SLOPE, AlibiPosition
from course_lib.positions.base import Position
from course_lib.positions.relative import ShawPosition, T5Position
from course_lib.positions.rope import RotaryPosition

POSITIONS = ("rope", "alibi", "t5", "shaw", "sinusoidal", "learned", "none")
SLOPES = ("per_head", "uniform")


def make(
    name: str, *, d_model: int, n_heads: int, max_positions: int, causal: bool, rotary_dim: int | None = None,
    rope_theta: float = 10000.0, rope_extension: str = "none", rope_factor: float = 1.0,
    alibi_slopes: str = "per_head", max_distance: int = 128, n_buckets: int = 32,
) -> Position:  # fmt: skip
    """A new module of the scheme called `name`, one of POSITIONS, for a model of these sizes.

    `causal` leaves T5 and Shaw without places after the query. "learned" ends at max_positions; "sinusoidal" is as
    large as the embeddings of `init_weights`; "rope" turns `rotary_dim` channels of a head, by default all, and the
    other rope_ arguments are those of `rope_frequencies`; `alibi_slopes` is "per_head" or "uniform", 1/16 for all;
    max_distance and n_buckets belong to "t5" and "shaw". Raises ValueError for an unknown name or alibi_slopes, and
    what the scheme refuses.
    """
    check_choice("position", name, POSITIONS)
    check_choice("alibi_slopes", alibi_slopes, SLOPES)
    match name:
        case "rope":
            turned = d_model // n_heads if rotary_dim is None else rotary_dim
            return RotaryPosition(turned, rope_theta, extension=rope_extension, factor=rope_factor)
        case "alibi":
            return AlibiPosition(n_heads, UNIFORM_SLOPE if alibi_slopes == "uniform" else None)
        case "t5":
            return T5Position(n_heads, n_buckets, max_distance, bidirectional=not causal)
        case "shaw":
            return ShawPosition(d_model // n_heads, max_distance, bidirectional=not causal)
        case "sinusoidal":
            return SinusoidalPosition(d_model, AS_EMBEDDINGS)
        case "learned":
            return LearnedPosition(max_positions, d_model)
        case _:
            return Position()


def spread(name: str, new: Callable[[], Position], n_layers: int) -> tuple[Position, list[Position | None]]:
    """Where a scheme acts in a model: before the first block, and in each of n_layers blocks.

    `new` makes a module of the scheme. Sinusoidal and learned vectors are added once, before the blocks; Shaw's belong
    to each block; the others are one module for all blocks, so that T5's numbers are shared, as in its paper.
    """
    if name in ("sinusoidal", "learned"):
        return new(), [None] * n_layers
    if name == "shaw":
        return Position(), [new() for _ in range(n_layers)]
    return Position(), [new()] * n_layers
