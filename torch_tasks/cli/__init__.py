"""The command ``torch-tasks``."""
