"""Seven scores of what each head does, and the controls that they stand beside."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import heads
from course_lib.tokenization import SPECIAL, START, Tokenizer

COPY = 40  # random tokens that come twice
BYTES = 256  # pieces after the special ones, for characters outside the alphabet
LIMIT = 0.3  # a head has a role if its score is above this, and above twice the untrained head's


def role_scores(model: nn.Module, ids: Tensor, repeated: Tensor, marks: Sequence[int]) -> dict[str, np.ndarray]:
    """The seven scores of each head, (layers, heads), on text ids (B, T) and on rows of `heads.repeated(COPY, ...)`.

    `marks` are the tokens that end sentences.
    """
    maps, on_repeated = heads.attention_maps(model, ids), heads.attention_maps(model, repeated)
    scores = {
        "previous": heads.previous_token(maps),
        "same": heads.same_token(maps),
        "first": heads.first_token(maps),
        "sentence end": heads.on_tokens(maps, ids, marks),
        "earlier copy": heads.earlier_copy(on_repeated, COPY),
        "induction": heads.induction(on_repeated, COPY),
        "reach": heads.reach(maps),
    }
    return {name: values.cpu().numpy() for name, values in scores.items()}


def role_table(model: nn.Module, untrained: nn.Module, tokenizer: Tokenizer, ids: Tensor) -> dict[str, dict]:
    """`role_scores` of a trained model, of the same one untrained, and of the trained one on shuffled tokens.

    ids (B, T) begin with <s>, which stays where it is. The shuffled control of the two scores on repeated tokens has
    other tokens in place of the repetition.
    """
    generator = torch.Generator().manual_seed(0)
    rows = [row[1:][torch.randperm(len(row) - 1, generator=generator).to(ids.device)] for row in ids]
    shuffled = torch.cat([ids[:, :1], torch.stack(rows)], 1)
    words = range(len(SPECIAL) + BYTES, tokenizer.vocab_size)
    twice, others = (heads.repeated(COPY, 32, words, seed, START).to(ids.device) for seed in (0, 1))
    not_twice = torch.cat([twice[:, : COPY + 1], others[:, COPY + 1 :]], 1)
    marks = [i for i in range(tokenizer.vocab_size) if tokenizer.piece(i).lstrip("▁") in (".", "?", "!")]
    return {
        "trained": role_scores(model, ids, twice, marks),
        "untrained": role_scores(untrained, ids, twice, marks),
        "shuffled": role_scores(model, shuffled, not_twice, marks),
    }


def taken_roles(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, set[tuple[int, int]]]:
    """Role -> the heads (layer, head) that have it: a score above 0.3 and above twice the untrained head's.

    Of the two scores on repeated tokens it must also be above twice the score without the repetition. In place of
    "reach" stands "local": a head whose reach is less than a third of the untrained head's.
    """
    roles = {}
    for role, trained in found["trained"].items():
        control = found["untrained"][role]
        if role in ("earlier copy", "induction"):
            control = np.maximum(control, found["shuffled"][role])
        has = trained < control / 3 if role == "reach" else (trained > LIMIT) & (trained > 2 * control)
        layers, heads_ = np.where(has)
        roles["local" if role == "reach" else role] = {(int(i), int(h)) for i, h in zip(layers, heads_, strict=True)}
    return roles
