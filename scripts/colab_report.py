"""What `make test-colab` compares, counts and reports (scripts/imitate_colab.py)."""

import re
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"( *<!-- test-colab -->\n).*?( *<!-- /test-colab -->)", re.S)


def added(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """The packages of `after` that `before` lacks. Raises ValueError if one of `before` changed or is gone."""
    lost = {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
    if lost:
        said = ", ".join(f"{name} {old} -> {new or 'gone'}" for name, (old, new) in lost.items())
        raise ValueError(f"what Colab has preinstalled was replaced: {said}")
    return {name: version for name, version in after.items() if name not in before}


def counted(xml: Path) -> dict[str, int]:
    """Passed and skipped tests of a JUnit report. Raises ValueError when there are others, or none that passed."""
    suites = list(ElementTree.parse(xml).getroot().iter("testsuite"))
    keys = ("tests", "failures", "errors", "skipped")
    total, failed, errors, skipped = (sum(int(suite.get(key, 0)) for suite in suites) for key in keys)
    if failed or errors or total <= skipped:
        raise ValueError(f"{total} tests: {failed} failed, {errors} with errors, {skipped} skipped")
    return {"passed": total - skipped, "skipped": skipped}


def sentence(record: dict[str, Any]) -> str:
    """What README says of a run, from its record."""
    of, tests, cells = record["versions"], record["unit_tests"], record["notebooks"]
    skipped = f" ({tests['skipped']} skipped)" if tests["skipped"] else ""
    return (
        f"Last passed on {record['date']}, with torch {of['torch']}, numpy {of['numpy']}, ipywidgets "
        f"{of['ipywidgets']} and IPython {of['ipython']} on Python {record['python']}, in "
        f"{sum(record['seconds'].values()) / 60:.0f} minutes: {tests['passed']} unit tests{skipped} and "
        f"{sum(cells.values())} cells of {len(cells)} notebooks; of {record['preinstalled']} packages none was "
        f"replaced, and the set-up cell added {' and '.join(record['added'])}."
    )


def with_sentence(readme: str, record: dict[str, Any]) -> str:
    """The text of README with the sentence about `record` between its marks. Raises ValueError without these."""
    lines = textwrap.fill(sentence(record), 118, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    text, found = BLOCK.subn(lambda marks: f"{marks[1]}{lines}\n{marks[2]}", readme)
    if found != 1:
        raise ValueError(f"README.md has {found} places between <!-- test-colab --> and <!-- /test-colab -->, not one")
    return text
