"""The base of all contracts: frozen, strict about unknown keys, helpful about misspelt ones."""

import difflib
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


def nearest(name: str, candidates: Iterable[str]) -> str:
    """A 'did you mean' clause for a misspelt name, or the list of valid names.

    Args:
        name: What was written.
        candidates: The valid names.

    Returns:
        A sentence that ends an error message.
    """
    names = sorted(candidates)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Valid: {', '.join(names)}." if names else "There is none to choose from."


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Record(BaseModel):
    """A frozen record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(
                        f"unknown key '{key}' in {cls.__name__}. "
                        f"{nearest(str(key), cls.model_fields)}"
                    )
        return data

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the record's canonical JSON."""
        return digest_of(self.model_dump(mode="json"))
