"""The ML Test Score of a model: which of the 28 tests were run for it, with what to show."""
