"""Who acts: the actor written to the ledger."""
