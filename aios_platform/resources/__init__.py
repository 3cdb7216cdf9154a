"""Thin Dagster resources, one per store."""
