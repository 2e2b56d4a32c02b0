"""Every statement on the broker and on SQLite: one file for one thing."""
