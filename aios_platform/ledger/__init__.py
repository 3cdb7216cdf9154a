"""The record of decisions in Postgres, and the compare-and-swap of champions."""
