"""Estimates: a value with its interval, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

POWER_FACTOR = 1.43  # (1.96 + 0.84) / 1.96: half-width to the effect found with power 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its uncertainty; `value` is None exactly when `reason` says why.

    value: bias-corrected estimate; plug_in: the uncorrected one. low, high: interval at `level`, None when undefined.
    unit: unit of the value. resampled: what was resampled ("document", "document x type"). n_units: how many of them.
    n: further sample size (types, tokens), named by n_of. null: mean of the matched null, null_low/null_high its central 95 %.
    p: accompanies, never decides. gate: why no verdict may rest on the number (`undersampled`, ...); the number itself stays.
    """

    value: float | None
    low: float | None
    high: float | None
    unit: str
    resampled: str
    n_units: int
    method: str
    level: float = 0.95
    plug_in: float | None = None
    se: float | None = None
    n: int | None = None
    n_of: str | None = None
    null: float | None = None
    null_low: float | None = None
    null_high: float | None = None
    p: float | None = None
    reason: str | None = None
    gate: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) != (self.reason is not None):
            raise ValueError("an Estimate has a value or a reason, not both and not neither")
        for name in ("value", "low", "high", "plug_in", "se", "null", "p"):
            number = getattr(self, name)
            if number is not None and math.isnan(number):
                raise ValueError(f"Estimate.{name} is NaN; use Estimate.undefined(reason)")

    @classmethod
    def undefined(cls, reason: str, *, unit: str = "", resampled: str = "document", n_units: int = 0, method: str = "none",
                  n: int | None = None, n_of: str | None = None) -> Estimate:
        """An estimate that could not be made, with the reason."""
        return cls(None, None, None, unit, resampled, n_units, method, n=n, n_of=n_of, reason=reason)

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width, in `unit`; None without an interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def minimum_detectable_effect(self) -> float | None:
        """Smallest distance from a threshold that these documents show with power 0.8 (metrics.md section 7)."""
        return None if self.half_width is None else self.half_width * POWER_FACTOR

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; undefined stays null with its reason."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Estimate:
        """Inverse of to_json."""
        return cls(**fields)
