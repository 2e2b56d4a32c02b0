"""Stand-ins for what the tests cannot have: coding agents that fail on demand, and the models behind real ones."""
