"""Frozen records that pass between stages. No I/O here, and no library heavier than pydantic."""
