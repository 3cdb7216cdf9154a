"""The scheduler daemon: Dagster's own, one per installation, with an eye on its lock and clock."""
