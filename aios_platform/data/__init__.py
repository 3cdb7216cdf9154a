"""Windows of data: the source, validation (Great Expectations), quarantine."""
