"""Hyper-parameter search with Optuna: studies in our database, trials that survive a kill."""
