"""Video encoders: a table of them, the tiers they run in, and what is done where one fails."""
