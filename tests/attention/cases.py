"""Random inputs of local and global attention, and what must be equal: outputs, and gradients of everything."""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from hypothesis import strategies as st

import course_lib.attention.global_local as global_local
import course_lib.attention.local as local
from course_lib.attention import Pattern, causal, dilated
from tests.positions.toy import Toy

H, D = 2, 4
NOTHING = Pattern("nothing", lambda q_pos, k_pos: (q_pos < k_pos) & (k_pos < q_pos))
FIVES = Pattern("fives", lambda q_pos, k_pos: (q_pos + 2 * k_pos) % 5 != 0)  # not symmetric
MASKS = (None, None, causal, dilated(2, 2), FIVES, NOTHING)
HOOKS = (None, None, (), ("rotate",), ("bias",), ("score",), ("rotate", "bias", "score"))
EDGES = [1, 2, 3, 5, 8, 13, 15, 16, 17, 31, 32, 33, 47, 48, 49, 50, 63, 64, 65, 80, 97, 128, 129, 200, 299, 300]
LENGTHS = st.sampled_from(EDGES) | st.integers(1, 70) | st.integers(1, 300)


@contextmanager
def blocks_of(smallest):
    """Blocks as small as `smallest`, and in blocks however short a text is; None leaves both as they are."""
    with ExitStack() as stack:
        if smallest is not None:
            stack.enter_context(mock.patch.object(local, "SMALLEST_BLOCK", smallest))
            for module in (local, global_local):
                stack.enter_context(mock.patch.object(module, "is_short", lambda q, block: q.shape[2] == 0))
        yield


@st.composite
def cases(draw):
    """Numbers and names only, which hypothesis can make smaller; `tensors` makes the rest of them."""
    length = draw(LENGTHS)
    radius = draw(st.integers(0, 9) | st.integers(0, length + 3))
    smallest = draw(st.sampled_from([None, 1, 2, 5]))
    return {
        "seed": draw(st.integers(0, 10**6)),
        "length": length,
        "batch": draw(st.integers(1, 3)),
        "n_kv": draw(st.sampled_from([1, H])),
        "dv": draw(st.sampled_from([D, 3])),
        "radius": radius,
        "smallest": smallest if length * radius < 800 else None,  # blocks longer than a long text take long
        "causal": draw(st.booleans()),
        "mask": draw(st.sampled_from(MASKS)),
        "hooks": draw(st.sampled_from(HOOKS)),
        "padding": draw(st.sampled_from([None, "some", "one sequence", "all"])),
        "places": draw(st.sampled_from([None, "offset", "gaps", "one row", "rows", "int32"])),
        "scale": draw(st.sampled_from([None, 0.3])),
    }


def heads(case, dtype=torch.float64):
    """q, k, v as leaves of the graph."""
    sizes = ((H, D), (case["n_kv"], D), (case["n_kv"], case["dv"]))
    shapes = [(case["batch"], n_heads, case["length"], width) for n_heads, width in sizes]
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def arguments(case, dtype=torch.float64):
    """The keyword arguments but radius, and the parameters of the scheme."""
    batch, length = case["batch"], case["length"]
    given = {"causal": case["causal"], "mask": case["mask"], "scale": case["scale"]}
    if case["padding"] is not None:
        keys = torch.rand(batch, length) < 0.7
        keys[{"some": slice(0, 0), "one sequence": slice(-1, None), "all": slice(None)}[case["padding"]]] = False
        given["key_mask"] = keys
    if case["places"] is not None:
        rows = {"rows": batch, "one row": 1}.get(case["places"], 0)
        steps = torch.ones(max(rows, 1), length, dtype=torch.int64)
        if case["places"] != "offset":
            steps = torch.randint(1, 4, (max(rows, 1), length))
        pos = steps.cumsum(-1) + torch.randint(-50, 200, (len(steps), 1))
        pos = pos if rows else pos[0]
        given["q_pos"] = given["k_pos"] = pos.int() if case["places"] == "int32" else pos
    toy = None if case["hooks"] is None else scheme(case["hooks"], dtype)
    return given | {"position": toy}, [] if toy is None else [*toy.parameters()]


def scheme(hooks, dtype=torch.float64):
    """A Toy whose bias is small enough that a long text does not make every softmax a choice of one."""
    toy = Toy(H, D, hooks).double()
    toy.slopes.data *= 0.05
    return toy.to(dtype)


def with_gradients(f, leaves):
    """The output of f and the gradients of all leaves, for one and the same upstream gradient."""
    y = f()
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    return [y.detach(), *torch.autograd.grad(y, leaves, upstream, allow_unused=True, materialize_grads=True)]


def assert_equal(got, want, tolerance=1e-10):
    """Relative to the largest entry, or to 1 where all are smaller: some gradients are zero but for rounding."""
    for i, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        assert ours.shape == theirs.shape, i
        assert ours.dtype == theirs.dtype, i
        assert ours.isfinite().all(), i
        largest = max(1.0, theirs.abs().max().item()) if theirs.numel() else 1.0
        assert not ours.numel() or (ours - theirs).abs().max().item() <= tolerance * largest, i


def errors(got, exact):
    """Largest difference of each tensor from the exact one."""
    return [(a.double() - b).abs().max().item() for a, b in zip(got, exact, strict=True)]


def units(exact, dtype):
    """Each tensor's largest entry times the eps of `dtype`: as much of its largest error is a matter of chance."""
    return [torch.finfo(dtype).eps * x.abs().max().item() for x in exact]
