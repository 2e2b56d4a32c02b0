"""The console: the fleet in a browser, for people."""
