"""Answers kept for equal feature values under one model version."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Key = tuple[bytes, tuple[str, ...]]


class AnswerCache:
    """Bounded, least recently used first out, with an age limit.

    A cache belongs to one version, so that a promotion never gives the old one's answers; a
    version scores one batch at a time, so that equal rows that arrive together are scored once.

    Args:
        entries: Most answers kept.
        ttl_seconds: Greatest age of an answer.
    """

    def __init__(self, entries: int, ttl_seconds: float) -> None:
        self._entries = entries
        self._ttl = ttl_seconds
        self._kept: OrderedDict[Key, tuple[float, float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @staticmethod
    def keys(matrix: NDArray[np.float32], texts: Sequence[Sequence[str]]) -> list[Key]:
        """What rows are looked up by: their values, bit for bit."""
        rows = np.ascontiguousarray(matrix)
        named = list(zip(*texts, strict=True)) if texts else [()] * len(rows)
        return [(row.tobytes(), words) for row, words in zip(rows, named, strict=True)]

    def get(self, key: Key, now: float) -> tuple[float, int] | None:
        """The probability kept for these values and the tier that gave it; None: there is none."""
        found = self._kept.get(key)
        if found is None:
            return None
        probability, tier, until = found[0], found[2], found[1]
        if now >= until:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return probability, tier

    def put(self, key: Key, probability: float, tier: int, now: float) -> None:
        """Keep an answer."""
        self._kept[key] = (probability, now + self._ttl, tier)
        self._kept.move_to_end(key)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)
