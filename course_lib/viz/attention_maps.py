"""Attention weights and their tokens: the data format of the attention explorer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from course_lib.checks import check_at_least, check_range

MOST_CATEGORIES = 12  # six colours, plain and striped
_VISIBLE = {"": "∅", "\n": "⏎", "\t": "⇥", " ": "▁"}


@dataclass(frozen=True)
class PatchImage:
    """A picture (height, width, 3) in uint8, cut into `rows` x `columns` patches that are numbered in reading order."""

    pixels: np.ndarray
    rows: int
    columns: int

    def __post_init__(self) -> None:
        p = self.pixels
        if not isinstance(p, np.ndarray) or p.dtype != np.uint8 or p.ndim != 3 or p.shape[2] != 3 or not p.size:
            raise ValueError(f"pixels is {_describe(p)}; needed is a uint8 array (height, width, 3)")
        check_at_least("rows", self.rows, 1)
        check_at_least("columns", self.columns, 1)


@dataclass(frozen=True)
class Selection:
    """What the explorer shows: a layer, a head, the locked query (or None), and the heads that lines are drawn for.

    No `heads` means the selected head alone. All are numbered from 0.
    """

    layer: int = 0
    head: int = 0
    query: int | None = None
    heads: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention weights (layers, heads, T queries, S keys) between labelled tokens.

    `weights` is a NumPy array or a tensor; it is kept as float32. `queries` are T labels, `keys` S; without keys they
    are the queries. `allowed`, bool (T, S) or (layers, T, S), is True where a query may attend.
    `note` is a sentence that the explorer shows beside the map.
    `image`: the last rows x columns queries and keys are its patches, those before them special tokens.
    `colors`, int (T,) or (layers, T): the category of each query, such as its expert, named by `color_names`; -1: none.
    Raises ValueError for shapes that do not fit, for weights that are negative, not finite, of a masked pair, or sum to
    more than 1 in a row, and for labels that are not strings.
    """

    weights: np.ndarray
    queries: Sequence[str]
    keys: Sequence[str] = ()
    allowed: np.ndarray | None = None
    layer_names: Sequence[str] = ()
    note: str = ""
    image: PatchImage | None = None
    colors: np.ndarray | None = None
    color_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        def keep(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen

        keep("weights", _checked_weights(self.weights))
        layers, _, n_queries, n_keys = self.weights.shape
        keep("queries", _labels("queries", self.queries, n_queries))
        keep("keys", _labels("keys", self.keys if len(self.keys) else self.queries, n_keys))
        names = self.layer_names if len(self.layer_names) else [str(i) for i in range(layers)]
        keep("layer_names", _labels("layer_names", names, layers))
        if self.allowed is not None:
            keep("allowed", self._per_layer("allowed", as_array(self.allowed), "b", (n_queries, n_keys)))
            if (forbidden := (self.weights > 0) & ~self.allowed[:, None]).any():
                i, h, q, k = (int(n) for n in np.argwhere(forbidden)[0])
                raise ValueError(
                    f"allowed is False for query {q} and key {k}, but the weight in layer {i}, head {h} is "
                    f"{self.weights[i, h, q, k]:.3g}; a masked pair has weight 0"
                )
        if self.colors is not None:
            keep("colors", self._per_layer("colors", as_array(self.colors), "iu", (n_queries,)))
            keep("color_names", _labels("color_names", self.color_names, len(self.color_names)))
            low, high = int(self.colors.min()), int(self.colors.max())
            if low < -1 or high >= len(self.color_names) or len(self.color_names) > MOST_CATEGORIES:
                raise ValueError(
                    f"colors has {low} to {high} for {len(self.color_names)} color_names; allowed is -1 to the number "
                    f"of names less 1, and at most {MOST_CATEGORIES} names"
                )
        if self.image is not None:
            patches = self.image.rows * self.image.columns
            if n_queries != n_keys or patches > n_keys:
                raise ValueError(
                    f"image has {self.image.rows} x {self.image.columns} patches for {n_queries} queries and {n_keys} "
                    "keys; needed are equally many of both, the patches being the last of them"
                )

    def _per_layer(self, name: str, value: Any, kinds: str, shape: tuple[int, ...]) -> np.ndarray:
        full = (len(self.weights), *shape)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds or value.shape not in (shape, full):
            kind = "bool" if kinds == "b" else "integer"
            raise ValueError(f"{name} is {_describe(value)}; needed is a {kind} array {shape} or {full}")
        return np.broadcast_to(value, full)

    def crop(self, query_start: int, key_start: int, size: int) -> "AttentionMaps":
        """The part with at most `size` queries and keys from the given ones on; a picture stays only with the whole."""
        q, k = slice(query_start, query_start + size), slice(key_start, key_start + size)
        whole = len(self.queries[q]) == len(self.queries) and len(self.keys[k]) == len(self.keys)
        return self if whole else replace(
            self, weights=self.weights[:, :, q, k], queries=self.queries[q], keys=self.keys[k], image=None,
            allowed=None if self.allowed is None else self.allowed[:, q, k],
            colors=None if self.colors is None else self.colors[:, q],
        )  # fmt: skip

    def check(self, selection: Selection) -> None:
        """Raise ValueError unless the maps have what is selected."""
        layers, heads, n_queries, _ = self.weights.shape
        named = {"layer": (selection.layer, layers), "head": (selection.head, heads)}
        if selection.query is not None:
            named["query"] = (selection.query, n_queries)
        named |= {f"heads: {head}": (head, heads) for head in selection.heads}
        for name, (index, count) in named.items():
            check_range(name, index, 0, count - 1)

    def text(self, selection: Selection) -> str:
        """One line: the strongest weight of the selected map, or of its locked query."""
        self.check(selection)
        chosen = self.weights[selection.layer, selection.head]
        rows = chosen if selection.query is None else chosen[[selection.query]]
        q, k = (int(n) for n in np.unravel_index(rows.argmax(), rows.shape))
        q = q if selection.query is None else selection.query
        label = f"layer {self.layer_names[selection.layer]}, head {selection.head}"
        return f"{label}: strongest is {rows.max():.2f}, from {visible(self.queries[q])} to {visible(self.keys[k])}"


def visible(label: str) -> str:
    """The label with a sign for each line break and tab, and for nothing or a space alone."""
    return _VISIBLE.get(label) or label.replace("\n", "⏎").replace("\t", "⇥")


def as_array(value: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16


def _describe(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _labels(name: str, labels: Sequence[str], count: int) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{name}={labels!r}; needed are {count} strings")
    if len(labels) != count:
        raise ValueError(f"{name} has {len(labels)} entries; weights needs {count}")
    return tuple(labels)


def _checked_weights(given: Any) -> np.ndarray:
    weights = as_array(given)
    if not isinstance(weights, np.ndarray) or weights.ndim != 4 or weights.dtype.kind != "f" or not weights.size:
        raise ValueError(
            f"weights is {_describe(weights)}; needed is an array of floats (layers, heads, queries, keys), not empty"
        )
    weights = weights.astype(np.float32)
    where = "layer {}, head {}, query {}, key {}".format
    for wrong, allowed in ((~np.isfinite(weights), "finite numbers"), (weights < 0, "0 to 1")):
        if wrong.any():
            at = np.argwhere(wrong)[0]
            raise ValueError(f"weights has {weights[tuple(at)]} at {where(*at)}; allowed are {allowed}")
    sums = weights.sum(-1)
    if sums.max() > 1.01:  # the room that bfloat16 needs
        at = np.unravel_index(sums.argmax(), sums.shape)
        raise ValueError(
            f"weights sums to {sums.max():.3g} over the keys at layer {at[0]}, head {at[1]}, query {at[2]}; allowed is "
            "at most 1: are these scores from before the softmax, or a softmax over the queries?"
        )
    return weights.clip(0, 1)
