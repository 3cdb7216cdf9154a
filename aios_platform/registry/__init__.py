"""MLflow: runs, registered versions, provenance; aliases are a projection of the ledger."""
