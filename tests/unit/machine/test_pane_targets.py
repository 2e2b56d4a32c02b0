"""Which pane a target names: exactly one, or none."""

from __future__ import annotations

import pytest

from torch_tasks.errors import PaneNotFound
from torch_tasks.machine.user_panes import UserPane, resolve


def pane(number: int, session: str, window: int, name: str, index: int = 0, active: bool = True) -> UserPane:
    """A pane as tmux would list it; the first window of a session is its active one."""
    return UserPane(
        pane_id=f"%{number}",
        session=session,
        attached=False,
        window_id=f"@{session}{window}" if session != "prod" else f"@{window}",
        window=window,
        window_name=name,
        window_active=window == 0,
        window_panes=1,
        layout="",
        index=index,
        active=active,
    )


PANES = [
    pane(0, "prod", 0, "bash"),
    pane(1, "prod", 1, "api:v1.2", 0, active=False),
    pane(2, "prod", 1, "api:v1.2", 1),
    pane(3, "prod", 2, "1"),
    pane(4, "prod", 3, "bash"),
    pane(5, "prod-api", 0, "a b"),
    pane(6, "prod-api", 4, "v1"),
    pane(7, "prod-api", 5, "v1.0"),
]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("%4", 4),
        ("@1", 2),
        ("prod", 0),
        ("=prod", 0),
        ("prod:", 0),
        ("prod:3", 4),
        ("prod:1", 2),  # an index before a name
        ("prod:1.0", 1),
        ("prod:1.%1", 1),
        ("prod:api:v1.2", 2),
        ("prod:api:v1.2.0", 1),
        ("prod-api:a b", 5),
        ("prod-api:v1", 6),
    ],
)
def test_a_target_names_one_pane(target: str, found: int) -> None:
    assert resolve(target, PANES).pane_id == f"%{found}"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("pro", "no session 'pro'; did you mean prod"),
        ("prod*:0", "no session 'prod\\*'"),
        (":0", "no session ''"),
        ("prod:ba", "no window or pane 'prod:ba'; session 'prod' has the windows 0 \\(bash\\), 1"),
        ("prod:ba*", "no window or pane"),
        ("prod:bash", "may be prod:0.0 \\(%0\\) or prod:3.0 \\(%4\\); name the pane by its id, as %0"),
        ("prod-api:v1.0", "may be"),  # the window v1.0, or the first pane of the window v1
        ("prod:1.7", "no window or pane"),
        ("prod:-1", "no window or pane"),
        ("%9", "there is no %9"),
    ],
)
def test_nothing_is_guessed(target: str, said: str) -> None:
    with pytest.raises(PaneNotFound, match=said):
        resolve(target, PANES)
