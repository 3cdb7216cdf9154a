"""The ModelLifecycle component, one file per stage: what it declares, nothing it computes."""
