"""Feast: our offline and online stores, feature tables, point-in-time training sets, leakage."""
