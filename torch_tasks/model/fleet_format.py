"""In which format a release of Torch keeps and reads what the machines of a fleet share."""

from __future__ import annotations

from torch_tasks.errors import OtherFormat
from torch_tasks.model.fields import Model

FORMAT = 2
"""Of this release. Whatever changes the form or the meaning of something on the broker, or in a machine's state folder,
so that the release before would misread or refuse it, makes it one more; docs/upgrading.md lists all."""
FIRST = 1
"""That of 0.1.0, which noted none."""


class FleetFormat(Model):
    """A format, and the release that brought it to a broker."""

    format: int
    release: str

    def require(self, own: FleetFormat, place: str) -> None:
        """Raise :class:`OtherFormat` if the broker at this place holds this format, and the ``own`` is another one."""
        if self.format == own.format:
            return
        raise OtherFormat(
            f"the broker at {place} holds a fleet in format {self.format} (of Torch {self.release}), and this Torch "
            f"{own.release} reads and writes format {own.format} alone: they cannot work together. Install a release "
            f"of format {self.format} here, as 'pip install torch-tasks=={self.release}', or take another broker; "
            "docs/upgrading.md says how a fleet changes its format"
        )
