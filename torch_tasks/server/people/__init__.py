"""How people come in by a browser: the provider that vouches for them, their sessions, the pages for it."""
