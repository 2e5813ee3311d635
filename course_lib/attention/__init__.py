"""Attention: functions of one signature (`AttentionFn`), patterns, and the modules that use them."""

from course_lib.attention.additive import AdditiveAttention
from course_lib.attention.arguments import AttentionFn
from course_lib.attention.kv_cache import KVCache, WindowKVCache
from course_lib.attention.masks import Pattern, causal, window
from course_lib.attention.multi_head import MultiHeadAttention
from course_lib.attention.sdpa import attention, masked_softmax

__all__ = [
    "AdditiveAttention",
    "AttentionFn",
    "KVCache",
    "MultiHeadAttention",
    "Pattern",
    "WindowKVCache",
    "attention",
    "causal",
    "masked_softmax",
    "window",
]
