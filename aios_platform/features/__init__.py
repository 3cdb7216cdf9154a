"""Feast: our offline and online stores, feature tables, point-in-time training sets, leakage."""

from aios_platform.preloading import check_constructors_only

# Every import of Feast follows on one of a module of this package.
check_constructors_only()
