"""Dagster Components: what a declaration turns into."""
