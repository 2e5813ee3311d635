"""How much a run computes, how much this machine can compute, and the quotient: model FLOPs utilisation (MFU)."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import take_turns

SMALLEST, LARGEST = 256, 16384
LONG_SECONDS = 0.05  # the next size takes 8 times as long
TURNS = 15  # on a busy machine some of them are undisturbed


class Product(NamedTuple):
    """A product of two square matrices, and the FLOPs of one call."""

    run: Callable[[], object]
    flops: int


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


def fastest_product(device: torch.device, dtype: torch.dtype) -> Product:
    """The product of two square matrices with the most FLOP/s on this machine, with the threads it has now.

    Sizes double from 256 while a product takes less than 0.05 s; the best of 15 turns speaks for a size. Timed in the
    rounds of a race, it is the matmul peak: what a program can hope for, not the number in the data sheet.
    """
    best, speed, size = None, 0.0, SMALLEST
    while size <= LARGEST:
        a, b, out = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(3))
        product = Product(partial(torch.mm, a, b, out=out), 2 * size**3)
        seconds = min(take_turns({"product": product.run}, TURNS, device)["product"])
        if best is None or product.flops / seconds > speed:
            best, speed = product, product.flops / seconds
        if seconds > LONG_SECONDS:
            break
        size *= 2
    assert best is not None
    return best


def share_of_peak(model_flops: int, seconds: Sequence[float], peak: Sequence[float]) -> float:
    """The share of the matmul peak that a run made use of: the median over rounds of FLOPs / seconds / peak.

    `seconds` of the run and `peak` (FLOP/s) are of the same rounds, so that a neighbour on the machine slows both.
    This is model FLOPs utilisation (MFU) but for the peak: PaLM's MFU divides by the one in the accelerator's data
    sheet, which is higher, so PaLM's is the smaller number. Source: Chowdhery et al. 2022, "PaLM", section 4.1.
    """
    return statistics.median(model_flops / s / p for s, p in zip(seconds, peak, strict=True))
