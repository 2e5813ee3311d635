"""Attention: functions of one signature (`AttentionFn`), patterns, and the modules that use them."""

from course_lib.attention.additive import AdditiveAttention
from course_lib.attention.arguments import AttentionFn
from course_lib.attention.big_bird import draw_blocks, random_blocks
from course_lib.attention.changed import with_attention
from course_lib.attention.global_local import global_local_attention
from course_lib.attention.kv_cache import Cache, KVCache, WindowKVCache
from course_lib.attention.local import local_attention
from course_lib.attention.masks import (
    Pattern,
    causal,
    dilated,
    full,
    global_tokens,
    window,
)
from course_lib.attention.multi_head import MultiHeadAttention
from course_lib.attention.places import Places
from course_lib.attention.sdpa import attention, masked_softmax
from course_lib.attention.sparse_multi_head import GlobalLocalAttention

__all__ = [
    "AdditiveAttention",
    "AttentionFn",
    "Cache",
    "GlobalLocalAttention",
    "KVCache",
    "MultiHeadAttention",
    "Pattern",
    "Places",
    "WindowKVCache",
    "attention",
    "causal",
    "dilated",
    "draw_blocks",
    "full",
    "global_local_attention",
    "global_tokens",
    "local_attention",
    "masked_softmax",
    "random_blocks",
    "window",
    "with_attention",
]
