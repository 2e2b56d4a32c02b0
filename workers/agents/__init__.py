"""One file per kind of agent program."""
