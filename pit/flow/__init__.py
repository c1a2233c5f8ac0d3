"""Flow matching: path, solvers, guidance, and how steps are made fast."""
