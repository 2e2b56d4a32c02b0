"""Who is there and who gets what: the agent registry."""
