"""Values that travel and are kept. They reach no broker, no disk and no process."""
