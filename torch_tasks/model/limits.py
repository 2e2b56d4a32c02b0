"""What an agent's terminal may use of its machine, and what it uses."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from torch_tasks.model.options import Option

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bytes(value: object) -> object:
    """A size as people write it: ``512M``, ``2G``, ``1.5GiB``; a plain number is bytes."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", value.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"{value!r} is not a size; write 512M or 2G")
    return int(float(found[1]) * _UNITS[found[2].upper()])


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1 << 20)]


class Limits(BaseModel):
    """The most that all processes in one agent's terminal may use together; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory: Annotated[Bytes | None, Option(metavar="SIZE", type=str)] = Field(
        None, description="The most memory that its terminal may use, as 512M or 2G."
    )
    cpu: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="The most processors that its terminal may use, as 1.5."
    )
    processes: int | None = Field(None, ge=1, description="The most processes that its terminal may have.")

    @property
    def limits(self) -> Limits:
        """These limits alone, without the fields of a subclass."""
        return Limits(memory=self.memory, cpu=self.cpu, processes=self.processes)

    @property
    def any(self) -> bool:
        return self.limits != Limits()

    def or_else(self, others: Limits) -> Limits:
        """These limits, with the others for those that are not set."""
        return Limits.model_validate(others.limits.model_dump() | self.limits.model_dump(exclude_none=True))


class Resources(BaseModel):
    """What an agent's terminal uses, and what keeps it within its limits."""

    model_config = ConfigDict(frozen=True)

    memory: int
    processes: int
    limits: Limits
    kept_by: str
    """``systemd scope …``, ``control group …`` or ``its worker``; empty if nothing enforces the limits."""
    oom_kills: int = 0
    """How many of its processes the kernel has killed for memory since it was started, as far as known."""

    def lines(self) -> list[tuple[str, str]]:
        limits = self.limits
        memory = size(self.memory) + (f" of {size(limits.memory)}" if limits.memory else "")
        memory += f", {self.oom_kills} killed for it" if self.oom_kills else ""
        processes = f"{self.processes}" + (f" of {limits.processes}" if limits.processes else "")
        lines = [("memory", memory), ("processes", processes)]
        if limits.cpu:
            lines.append(("cpu", f"at most {limits.cpu:g}" + ("" if self.by_kernel else ", not enforced here")))
        return [*lines, ("limits kept by", self.kept_by)] if limits.any else lines

    @property
    def by_kernel(self) -> bool:
        """Whether the kernel enforces the limits, with or without the agent's worker."""
        return self.kept_by.startswith(("systemd", "control"))


def size(amount: int) -> str:
    return f"{amount / (1 << 30):.1f} GiB" if amount >= 1 << 30 else f"{amount / (1 << 20):.0f} MiB"
