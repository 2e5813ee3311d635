"""How much a run computes, how much this machine can compute, and the quotient: model FLOPs utilisation."""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import take_turns

SMALLEST, LARGEST = 256, 16384
LONG_SECONDS = 0.05  # the next size takes 8 times as long
TURNS = 15  # on a busy machine some of them are undisturbed


def count_flops(run: Callable[[], object]) -> int:
    """FLOPs of the matrix products, convolutions and attention in one call of `run`, backward pass included.

    An (m, k) by (k, n) product counts 2 m k n, one for each multiplication and each addition. Everything else (norms,
    activations, softmax, the optimizer) counts 0. So a linear layer counts 2 m k n forward and 4 m k n backward, or
    2 m k n where nobody needs the gradient of its input. Attention counts all T x S pairs, masked or not.
    Count the model as it is defined: what a run computes twice to save memory does not make it more useful.
    Raises ValueError when nothing was counted. Source: Chowdhery et al. 2022, "PaLM", appendix B.
    """
    # torch's counter does not know the fused attention of a CPU: it would count 0. As two products it is seen.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    total = counter.get_total_flops()
    if total == 0:
        raise ValueError("run made no matrix product, convolution or attention: there are no FLOPs to count")
    return total


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The most FLOP/s that a product of two square matrices reached on this machine, with the threads it has now.

    Sizes double from 256 while a product takes less than 0.05 s; the best of 15 turns of the best size counts. It is
    what a program can hope for, not the number in the data sheet.
    """
    best, size = 0.0, SMALLEST
    while size <= LARGEST:
        a, b, out = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(3))
        seconds = min(take_turns({"product": partial(torch.mm, a, b, out=out)}, TURNS, device)["product"])
        best = max(best, 2 * size**3 / seconds)
        if seconds > LONG_SECONDS:
            break
        size *= 2
    return best


def utilisation(model_flops: int, seconds: float, peak: float) -> float:
    """Model FLOPs utilisation (MFU): the share of the machine's `peak` (FLOP/s) that a run of `seconds` made use of.

    Source: Chowdhery et al. 2022, "PaLM", section 4.1, with the measured peak in the place of the data sheet's.
    """
    return model_flops / (seconds * peak)
