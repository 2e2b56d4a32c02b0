"""A coding agent for the terminal that behaves as today's do, fails as told, and records what it read."""
