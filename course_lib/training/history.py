"""What a training leaves behind: one record a step."""

import math
from dataclasses import dataclass, field

COLUMNS = ("step", "loss", "lr", "grad_norm")


@dataclass
class History:
    """One record a step: COLUMNS, and the metrics of the loss function."""

    records: list[dict[str, float]] = field(default_factory=list)

    def column(self, name: str) -> list[float]:
        """All values of one column, step by step, nan where a step has none; ValueError for an unknown name."""
        names = {known: None for record in self.records for known in record}
        if names and name not in names:
            raise ValueError(f"name={name!r}; recorded are {', '.join(names)}")
        return [record.get(name, math.nan) for record in self.records]

    @property
    def diverged(self) -> bool:
        """True when the loss or its gradient stopped being finite; training ended before that step."""
        return not all(math.isfinite(record[name]) for record in self.records[-1:] for name in ("loss", "grad_norm"))
