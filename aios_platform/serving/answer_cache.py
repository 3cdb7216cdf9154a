"""Answers kept for equal feature values under one model version."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Kept = float | NDArray[np.float32]
Key = tuple[bytes, tuple[str, ...], tuple[int, ...]]


class AnswerCache:
    """Bounded, least recently used first out, with an age limit.

    A cache belongs to one version, so that a promotion never gives the old one's answers; a
    version scores one batch at a time, so that equal rows that arrive together are scored once.
    After a scoring that hung there may be two threads for a while, which is what the lock is for.

    Args:
        entries: Most answers kept.
        ttl_seconds: Greatest age of an answer.
    """

    def __init__(self, entries: int, ttl_seconds: float) -> None:
        self._entries = entries
        self._ttl = ttl_seconds
        self._kept: OrderedDict[Key, tuple[Kept, float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @staticmethod
    def keys(
        matrix: NDArray[np.float32], texts: Sequence[Sequence[str]], tiers: tuple[int, ...]
    ) -> list[Key]:
        """What rows are looked up by: their values, bit for bit, and the tiers that may answer.

        The same row may have another answer where the next tier may not be asked.
        """
        rows = np.ascontiguousarray(matrix)
        named = list(zip(*texts, strict=True)) if texts else [()] * len(rows)
        return [(row.tobytes(), words, tiers) for row, words in zip(rows, named, strict=True)]

    def get(self, key: Key, now: float) -> tuple[Kept, int] | None:
        """The answer kept for these values and the tier that gave it; None: there is none."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            probability, until, tier = found
            if now >= until:
                del self._kept[key]
                return None
            self._kept.move_to_end(key)
            return probability, tier

    def put(self, key: Key, probability: Kept, tier: int, now: float) -> None:
        """Keep an answer."""
        with self._lock:
            self._kept[key] = (probability, now + self._ttl, tier)
            self._kept.move_to_end(key)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)
