"""The AIOS Platform: declare a model once, get its whole governed lifecycle."""

__version__ = "0.1.0"
