"""One agent's life: its pane, its tasks, its messages, its place in the fleet."""
