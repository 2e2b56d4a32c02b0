"""The box that an agent's program runs in: what it sees, what it may write, whom it may reach."""
