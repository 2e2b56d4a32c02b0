"""The warm parent of the tests: it has loaded the commands too, which each have one module that they need."""

from importlib import import_module

from torch_tasks.cli import COMMANDS
from torch_tasks.workers.warm_parent import main

for group in COMMANDS.values():
    for place, _ in group.values():
        import_module(place.partition(":")[0])
main()
