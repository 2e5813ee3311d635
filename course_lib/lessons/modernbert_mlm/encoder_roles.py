"""Seven scores of what a head of an encoder looks at, and the controls that they stand beside."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import heads
from course_lib.tokenization import Tokenizer

MARKS = (".", ",", ";", ":", "?", "!", "-", "—")
LIMIT = 0.3  # a head has a role if its score is above this, and above twice the untrained head's


def token_after(maps: Tensor) -> Tensor:
    """Mean weight on the token just after: maps (L, B, H, T, T) -> (L, H). The last query has none."""
    return maps.diagonal(1, -2, -1).mean((1, 3))


def on_keys(maps: Tensor, wanted: Tensor) -> Tensor:
    """Mean weight on the pairs `wanted` (B, T, T), of queries that see such a key: (L, H); NaN where none does.

    What no head of a layer gives any weight is out of its sight: a local layer is not blamed for what is far away.
    """
    asked = ((maps > 0).any(2) & wanted).any(-1)  # (L, B, T)
    return ((maps * wanted.unsqueeze(1)).sum(-1) * asked.unsqueeze(2)).sum((1, 3)) / asked.sum((1, 2)).unsqueeze(1)


def scores_of(model: nn.Module, ids: Tensor, marks: Sequence[int]) -> dict[str, np.ndarray]:
    """The seven scores of each head, (layers, heads), on text ids (B, T); `marks` are the tokens that separate."""
    maps = heads.attention_maps(model, ids)
    place = torch.arange(ids.shape[1], device=ids.device)
    far = (place[:, None] - place).abs() > 1  # neighbours have scores of their own
    same = (ids.unsqueeze(2) == ids.unsqueeze(1)) & far
    start = (place == 0).expand(*ids.shape, -1) & (place[:, None] > 0)
    separator = torch.isin(ids, torch.tensor(marks, device=ids.device)).unsqueeze(1) & far
    scores = {
        "before": heads.previous_token(maps),
        "after": token_after(maps),
        "itself": heads.same_token(maps),
        "same token elsewhere": on_keys(maps, same),
        "punctuation": on_keys(maps, separator),
        "<s>": on_keys(maps, start),
        "reach": heads.reach(maps),
    }
    return {name: values.cpu().numpy() for name, values in scores.items()}


def role_table(model: nn.Module, untrained: nn.Module, tokenizer: Tokenizer, ids: Tensor) -> dict[str, dict]:
    """`scores_of` a trained model, of the same one untrained, and of the trained one on shuffled tokens.

    ids (B, T) begin with <s>, which stays where it is.
    """
    generator = torch.Generator().manual_seed(0)
    rows = [row[1:][torch.randperm(len(row) - 1, generator=generator).to(ids.device)] for row in ids]
    shuffled = torch.cat([ids[:, :1], torch.stack(rows)], 1)
    marks = [i for i in range(tokenizer.vocab_size) if tokenizer.piece(i).lstrip("▁") in MARKS]
    return {
        "trained": scores_of(model, ids, marks),
        "untrained": scores_of(untrained, ids, marks),
        "shuffled": scores_of(model, shuffled, marks),
    }


def taken_roles(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, set[tuple[int, int]]]:
    """Role -> the heads (layer, head) that have it: a score above 0.3 and above twice the untrained head's."""
    roles = {}
    for role, trained in found["trained"].items():
        if role != "reach":
            has = (trained > LIMIT) & (trained > 2 * found["untrained"][role])
            roles[role] = {(int(i), int(h)) for i, h in np.argwhere(has)}
    return roles
