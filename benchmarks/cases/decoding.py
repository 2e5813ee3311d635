"""One step of cached decoding in one attention layer: with 16, 4 and 1 key heads, which compute the same here."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.case import Case, Race, Run, Setting
from benchmarks.flops import count_flops
from course_lib.attention import KVCache, MultiHeadAttention, causal
from course_lib.attention.sdpa import repeat_heads

TOLERANCE = {"float32": 1e-5, "bfloat16": 4e-2}


class CachedStep:
    """The token `last` (B, 1, C) through our module, whose cache holds keys and values of those before it."""

    def __init__(self, module: MultiHeadAttention, last: Tensor, k: Tensor, v: Tensor) -> None:
        self.module, self.last, self.cache = module, last, KVCache(k.shape[2] + 1)
        self.cache.update(k, v, torch.arange(k.shape[2]))

    def __call__(self) -> Mapping[str, Tensor]:
        self.cache.length = self.cache.max_length - 1  # the last token of the call before is forgotten
        with torch.no_grad():
            return {"output": self.module(self.last, cache=self.cache)}


class FunctionsStep:
    """The same step in bare calls of torch's functions, without a module, a mask or a check."""

    def __init__(self, module: MultiHeadAttention, last: Tensor, k: Tensor, v: Tensor) -> None:
        self.state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        self.n_heads, self.n_kv_heads, self.last = module.n_heads, module.n_kv_heads, last
        self.k, self.v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))  # with room for the last

    def _heads(self, x: Tensor, name: str, n_heads: int) -> Tensor:
        y = F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])
        return y.unflatten(-1, (n_heads, -1)).transpose(1, 2)  # (B, heads, T, D)

    def __call__(self) -> Mapping[str, Tensor]:
        q = self._heads(self.last, "q_proj", self.n_heads)
        self.k[:, :, -1:] = self._heads(self.last, "k_proj", self.n_kv_heads)
        self.v[:, :, -1:] = self._heads(self.last, "v_proj", self.n_kv_heads)
        grouped = self.n_kv_heads != self.n_heads
        y = F.scaled_dot_product_attention(q, self.k, self.v, enable_gqa=grouped)  # (B, H, 1, D)
        y = y.transpose(1, 2).flatten(2)
        return {"output": F.linear(y, self.state["out_proj.weight"], self.state["out_proj.bias"])}


def with_copies(module: MultiHeadAttention) -> MultiHeadAttention:
    """The same function with as many key heads as query heads: each a copy of the one that its group shares."""
    full = MultiHeadAttention(module.d_model, module.n_heads, mask=module.mask)
    group = module.n_heads // module.n_kv_heads
    state = module.state_dict()
    for name in ("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias"):
        heads = state[name].unflatten(0, (module.n_kv_heads, module.head_dim))
        state[name] = heads.repeat_interleave(group, 0).flatten(0, 1)
    full.load_state_dict(state)
    return full


def race(setting: Setting, device: torch.device) -> Race:
    """`setting`: d_model, n_heads, n_kv_heads, batch, length (tokens, the new one included), dtype."""
    dtype = getattr(torch, setting["dtype"])
    torch.manual_seed(0)
    names = ("d_model", "n_heads", "n_kv_heads")
    module = MultiHeadAttention(**{name: setting[name] for name in names}, mask=causal)
    full = with_copies(module).to(device, dtype)
    module.to(device, dtype)
    last = torch.randn(setting["batch"], 1, setting["d_model"]).to(device, dtype)
    held = (setting["batch"], setting["n_kv_heads"], setting["length"] - 1, module.head_dim)
    k, v = (torch.randn(held).to(device, dtype) for _ in range(2))
    rivals: dict[str, Run] = {"torch's functions": FunctionsStep(module, last, k, v)}
    if setting["n_kv_heads"] < setting["n_heads"]:
        rivals["MultiHeadAttention, all key heads"] = CachedStep(
            full, last, repeat_heads(k, module.n_heads), repeat_heads(v, module.n_heads)
        )
    step = CachedStep(module, last, k, v)
    return Race(
        ours={"MultiHeadAttention": step},
        rivals=rivals,
        dtype=dtype,
        tolerance=TOLERANCE[setting["dtype"]],
        model_flops=count_flops(step),
    )


CASE = Case(
    name="decoding",
    question="What does a step of cached decoding cost, and what do fewer key heads save?",
    settings=[
        {"d_model": 1024, "n_heads": 16, "n_kv_heads": n_kv, "batch": 8, "length": length, "dtype": dtype}
        for dtype in ("float32", "bfloat16")
        for length in (256, 1024, 4096)
        for n_kv in (16, 4, 1)
    ],
    race=race,
)
