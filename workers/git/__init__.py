"""Git in the agents' trees: Torch commits what lies uncommitted for long, on a branch of the agent's own."""
