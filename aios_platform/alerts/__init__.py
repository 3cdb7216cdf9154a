"""Alerts: raised into an outbox, told once to each output, resolved."""
