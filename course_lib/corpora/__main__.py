"""`python -m course_lib.corpora [NAME ...]`: print the cards of the data sets."""

import sys
from io import TextIOWrapper

from course_lib.corpora.cards import card, readme


def main(names: list[str]) -> None:
    """Print the named cards, or all."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # where Windows writes to a file it would be a table without Japanese
    try:
        print("\n".join(map(card, names)) if names else readme(), end="")
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
