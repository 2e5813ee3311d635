"""Between the course's models and those of `transformers`: weights carried over, nothing wrapped."""

from course_lib.interop.gpt2 import gpt2_from_transformers, gpt2_oracle, gpt2_to_transformers

__all__ = ["gpt2_from_transformers", "gpt2_oracle", "gpt2_to_transformers", "oracle"]


def oracle(model: object) -> object:
    """The `transformers` model with the weights of `model`: another team's code, to compare outputs and gradients with.

    In eval mode, in the type of `model`, with its readable ("eager") attention. Raises ValueError for a model that has
    no counterpart there, ImportError where `transformers` is not installed.
    """
    from course_lib.models.gpt2 import GPT2

    if isinstance(model, GPT2):
        return gpt2_oracle(model)
    raise ValueError(f"model is a {type(model).__name__}; there is an oracle for GPT2")
