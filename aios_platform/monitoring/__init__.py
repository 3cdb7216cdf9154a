"""Drift (Evidently), delayed-label performance, the retrain decision (pure)."""
