"""A past stretch of windows, lived through again with the clock of then, and what came of it."""
