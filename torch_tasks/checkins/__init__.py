"""Check-ins: notes that beat sends to agents, and tasks that it enqueues, at set times."""
