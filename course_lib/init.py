"""One function gives every model its first weights."""

import hashlib
import math
import operator
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from course_lib.checks import check_above
from course_lib.norms import LayerNorm, RMSNorm


def seed_of(*parts: object) -> int:
    """A 63-bit seed made of `parts` (integers, names): equal parts give the same seed on every machine.

    Integers of NumPy and torch count as Python's. Raises ValueError for anything else, such as a float.
    """
    # ascii(), not repr(): which characters repr() escapes depends on the Unicode version of Python.
    digest = hashlib.sha256(ascii(tuple(map(_plain, parts))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _plain(part: object) -> int | str:
    if isinstance(part, str):
        return str(part)
    try:
        return operator.index(part)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"parts: {part!r} is a {type(part).__name__}; allowed are integers and names") from None


@torch.no_grad()
def init_weights(model: nn.Module, seed: int, gain: float = 1.0, gains: Mapping[str, float] | None = None) -> nn.Module:
    """Fill the weights in place and return the model: matrices normal, embeddings normal(0, 0.02), biases 0.

    A matrix that maps n inputs gets the standard deviation gain / sqrt(n), which keeps the spread of a linear layer's
    output equal to its input's when gain is 1 (LeCun et al. 1998, "Efficient BackProp", section 4.6). Each parameter
    draws from its own generator, seeded by (seed, its name): moving code changes no number. Norms keep gain 1, bias 0;
    a matrix that two modules share is drawn once. `gains` maps patterns of names, such as "blocks.*.mlp.down", to a
    factor more for those matrices. Raises ValueError for a gain <= 0, a pattern that fits no linear layer, or a module
    that it does not know.
    """
    gains = dict(gains or {})
    for name, value in (("gain", gain), *((f"gains[{pattern!r}]", value) for pattern, value in gains.items())):
        check_above(name, value, 0)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for pattern in gains:
        if not any(fnmatchcase(name, pattern) for name in linear):
            raise ValueError(f"gains: {pattern!r} fits no linear layer of the model")
    drawn: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, LayerNorm | RMSNorm | nn.LayerNorm | nn.RMSNorm):
            continue
        if isinstance(module, nn.Linear):
            own = math.prod(value for pattern, value in gains.items() if fnmatchcase(name, pattern))
            std = gain * own / math.sqrt(module.in_features)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            std = 0.02
        elif not list(module.parameters(recurse=False)):
            continue
        else:
            raise ValueError(
                f"model: {name!r} is a {type(module).__name__}; init_weights does not know how to begin it"
            )
        if id(module.weight) in drawn:
            continue
        drawn.add(id(module.weight))
        generator = torch.Generator().manual_seed(seed_of(seed, name))
        values = torch.empty(module.weight.shape, dtype=torch.float32).normal_(0, std, generator=generator)
        module.weight.copy_(values)  # drawn on the CPU: the same numbers on every device
    return model
