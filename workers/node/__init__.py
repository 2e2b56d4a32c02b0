"""One machine's node worker: the agent workers it keeps alive, and what it does for the whole fleet."""
