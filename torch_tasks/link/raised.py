"""The errors of another process, as they were raised there."""

from __future__ import annotations

from torch_tasks import errors
from torch_tasks.errors import InternalFault, TorchError


def error_named(name: str, text: str) -> TorchError:
    """The error of this class with this text, as another process raised it."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, TorchError):
        error = found.__new__(found)  # some are made of other things than their text
        error.args = (text,)
        return error
    return InternalFault(f"{name}: {text}")
