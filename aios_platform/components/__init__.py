"""Dagster Components: what a declaration turns into."""

from aios_platform.components.model_lifecycle.component import ModelLifecycle

__all__ = ["ModelLifecycle"]
