"""Patterns over the names of a model's parts, such as "blocks.*.attention"."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


def select(names: str | Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `known` that a name or pattern in `names` matches, level by level, in the order of `known`.

    `*` does not reach over a dot: "blocks.*" matches blocks.0, not blocks.0.mlp. Raises ValueError for a pattern that
    matches nothing.
    """

    def matches(name: str, pattern: str) -> bool:
        parts, patterns = name.split("."), pattern.split(".")
        return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))

    patterns, known = [names] if isinstance(names, str) else list(names), list(known)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in known):
            raise ValueError(f"names: {pattern!r} matches nothing; there are {', '.join(filter(None, known[:8]))}, …")
    return [name for name in known if any(matches(name, pattern) for pattern in patterns)]
