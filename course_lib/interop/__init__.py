"""Between the course's models and those of `transformers`: weights carried over, nothing wrapped."""

from course_lib.interop.bert import bert_names, bert_oracle, bert_to_transformers
from course_lib.interop.gpt2 import gpt2_from_transformers, gpt2_oracle, gpt2_to_transformers
from course_lib.interop.gpt_neox import pythia_from_transformers, pythia_oracle, pythia_to_transformers
from course_lib.interop.longformer import longformer_masks, longformer_oracle
from course_lib.interop.modernbert import (
    modernbert_from_transformers,
    modernbert_oracle,
    modernbert_to_transformers,
)

__all__ = [
    "bert_names",
    "bert_oracle",
    "bert_to_transformers",
    "gpt2_from_transformers",
    "gpt2_oracle",
    "gpt2_to_transformers",
    "longformer_masks",
    "longformer_oracle",
    "modernbert_from_transformers",
    "modernbert_oracle",
    "modernbert_to_transformers",
    "oracle",
    "pythia_from_transformers",
    "pythia_oracle",
    "pythia_to_transformers",
]


def oracle(model: object) -> object:
    """The `transformers` model with the weights of `model`: another team's code, to compare outputs and gradients with.

    A GPT2LMHeadModel for a GPT2; a GPTNeoXForCausalLM for a Pythia with RoPE (see `pythia_oracle`); BERT or
    RoBERTa-PreLayerNorm for a SparseBert that sees all (see `bert_oracle`); their ModernBertForMaskedLM for ours; a
    LongformerSelfAttention for a GlobalLocalAttention (see `longformer_oracle`). In eval mode, in the type of `model`,
    with its readable ("eager") attention. Raises ValueError for a model that has no counterpart there, ImportError
    where `transformers` is not installed.
    """
    from course_lib.attention import GlobalLocalAttention
    from course_lib.models.gpt2 import GPT2
    from course_lib.models.modernbert import ModernBertForMaskedLM
    from course_lib.models.pythia import Pythia
    from course_lib.models.sparse_bert import SparseBert

    if isinstance(model, GPT2):
        return gpt2_oracle(model)
    if isinstance(model, Pythia):
        return pythia_oracle(model)
    if isinstance(model, SparseBert):
        return bert_oracle(model)
    if isinstance(model, ModernBertForMaskedLM):
        return modernbert_oracle(model)
    if isinstance(model, GlobalLocalAttention):
        return longformer_oracle(model)
    raise ValueError(
        f"model is a {type(model).__name__}; there is an oracle for GPT2, Pythia, SparseBert, ModernBertForMaskedLM "
        "and GlobalLocalAttention"
    )
