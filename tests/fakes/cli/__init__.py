"""A fault-injecting coding agent for the terminal: it behaves as today's do, fails as told, and records what it read."""
