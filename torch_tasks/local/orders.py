"""The order to retire, in the folder of the agent whom it concerns: it stands until the agent has ended."""

from __future__ import annotations

from pathlib import Path

from torch_tasks.lifetimes import RetireOrder
from torch_tasks.local.files import make_folder, write_private

_FILE = "retire.json"


def write_order(agent_folder: Path, order: RetireOrder) -> None:
    """Have it stand; what was ordered before is void."""
    make_folder(agent_folder)
    write_private(agent_folder / _FILE, order.model_dump_json() + "\n")


def order_in(agent_folder: Path) -> RetireOrder | None:
    """What was ordered, if anything was."""
    try:
        return RetireOrder.model_validate_json((agent_folder / _FILE).read_bytes())
    except FileNotFoundError:
        return None


def drop_order(agent_folder: Path) -> None:
    """It was carried out."""
    (agent_folder / _FILE).unlink(missing_ok=True)


def ordered(state_dir: Path) -> list[str]:
    """The agents of this machine that are to retire."""
    return sorted(file.parent.name for file in state_dir.glob(f"agents/*/{_FILE}"))
