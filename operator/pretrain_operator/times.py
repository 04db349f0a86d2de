"""Seconds since the epoch to the API's RFC 3339 times and back. Pure: no clock is read."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(seconds: float) -> str:
    """Whole seconds, as metav1.Time has them."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(seconds: float) -> str:
    """As metav1.MicroTime has them: for times that are compared."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def epoch_seconds(text: str) -> float:
    """Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()
