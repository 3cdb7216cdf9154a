"""A declaration proposed from data: what `aios init` writes."""
