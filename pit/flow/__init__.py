"""Flow matching: path, solvers, guidance, and what makes steps fast."""
