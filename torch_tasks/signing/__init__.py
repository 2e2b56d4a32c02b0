"""Keys, certificates and signatures: who wrote something, and that it was not changed since."""
