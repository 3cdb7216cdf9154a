"""Declared models, one folder each, and what belongs to the whole platform."""
