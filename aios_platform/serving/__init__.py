"""The gateway: real-time inference over HTTP. Neither Dagster nor torch is imported here."""
