"""``python -m torch_tasks.cli``."""

from torch_tasks.cli import main

main(prog_name="torch-tasks")
