"""The warm parent of the tests: it has loaded the commands too, which each have one module that they need.

What it forks ends without taking apart all that was loaded: that is most of the work of a short command.
"""

import atexit
import os
import sys
from importlib import import_module


class Ending:
    """The last that a forked process does, when its threads have ended and all others have put their things away."""

    code: int | None = None
    """How it ends, if that is known."""

    def __call__(self) -> None:
        if self.code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


ending = Ending()
atexit.register(ending)  # before all others, so that it is called after them

from torch_tasks.cli import COMMANDS  # noqa: E402
from torch_tasks.workers.warm_parent import main  # noqa: E402

for group in COMMANDS.values():
    for place, _ in group.values():
        import_module(place.partition(":")[0])
try:
    main()
    ending.code = 0
except SystemExit as end:
    if end.code is None or isinstance(end.code, int):  # else Python prints it
        ending.code = end.code or 0
    raise
