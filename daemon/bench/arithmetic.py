"""Percentiles, and figures rounded for the result."""

from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank, so that it is one of ``values``, of which there is at least one."""
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(int(rank), 1) - 1]


def percentiles(name: str, values: Sequence[float], *percents: int) -> dict[str, float | None]:
    """``name_pN`` for every percentile (median and 95 % unless told); None where there is no value."""
    return {
        f"{name}_p{percent}": round(percentile(values, percent), 3) if values else None
        for percent in percents or (50, 95)
    }
