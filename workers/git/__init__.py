"""Git in the agents' trees: what is not committed for long is, on a branch of the agent's own."""
