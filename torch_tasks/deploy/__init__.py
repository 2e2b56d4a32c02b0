"""The files with which other programs run a fleet: systemd, compose, Kubernetes."""
