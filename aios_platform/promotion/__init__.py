"""The gate: paired tests and policy (pure), and the swap of the champion."""
