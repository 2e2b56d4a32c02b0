"""Events are asked for page by page: by whoever is slow to ask, by whoever comes back, and by several at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from nodes import Broker, Node
from waiting import until

from torch_tasks import Torch, keys
from torch_tasks.caller import Caller, acting_as
from torch_tasks.errors import InvalidRequest, NotYours
from torch_tasks.link import perform
from torch_tasks.monitoring import feed
from torch_tasks.monitoring.feed import EventPage
from torch_tasks.monitoring.flow import FlowKind
from torch_tasks.operations import agents, fleet


def ask(after: str | None = None, seconds: float = 10.0, **wanted: object) -> EventPage:
    return perform(fleet.events, fleet.AwaitEvents.build(after=after, seconds=seconds, **wanted))


def states(page: EventPage, task_id: str) -> list[str]:
    return [event.what for event in page.events if event.id == task_id]


def until_told(place: str, state: str) -> str:
    """The first task after this place of which this state is told."""
    while True:
        page = ask(place, kinds=["tasks"])
        if found := [event.id for event in page.events if event.what == state]:
            return found[0]
        place = page.place


def test_nothing_is_missed_between_two_pages(torch: Torch, shared_node: Node) -> None:
    shared_node.agent_worker("developer-1")
    begun = ask(kinds=["tasks"])
    assert (begun.events, begun.missed) == ((), False)
    task = torch.enqueue("true", agent="developer-1")
    assert task.result(timeout=60).succeeded  # and nobody asks meanwhile
    seen, place = [], begun.place
    while "succeeded" not in seen:
        page = ask(place, kinds=["tasks"])
        assert page.events, "the end of the task is told"
        seen += states(page, task.id)
        place = page.place
    assert seen.index("assigned") < seen.index("running") < seen.index("succeeded")
    assert states(ask(begun.place, 0, kinds=["tasks"]), task.id)[0] == seen[0], "a place may be asked for again"
    assert ask(place, 0.2, agents=["nobody"]).events == ()


def test_several_wait_at_once_and_each_gets_all(torch: Torch, broker: Broker) -> None:
    broker.empty()
    begun = ask().place
    with ThreadPoolExecutor(4) as at_once:
        waiting = [at_once.submit(until_told, begun, "cancelled") for _ in range(4)]
        task = torch.enqueue("true", role="nobody")
        task.cancel()
        assert [one.result(timeout=60) for one in waiting] == [task.id] * 4


def test_who_comes_back_to_another_process_is_told_that_events_were_missed(torch: Torch) -> None:
    page = ask("ffffffff-7")
    assert (page.events, page.missed) == ((), True)
    assert ask(page.place, 0).missed is False


def test_who_comes_back_to_another_process_goes_on_where_it_was(torch: Torch) -> None:
    begun = ask(kinds=["tasks"]).place
    tasks = [torch.enqueue("true", role="nobody") for _ in range(3)]
    for task in tasks:
        task.cancel()
    feed._feeds.clear()  # as in a process that begins now
    page = ask(begun, kinds=["tasks"])
    assert not page.missed
    assert [event.id for event in page.events if event.what == "cancelled"] == [task.id for task in tasks]
    last = torch.enqueue("true", role="nobody")
    last.cancel()
    assert until_told(page.place, "cancelled") == last.id


def test_what_the_broker_does_not_keep_any_more_is_said_to_be_missed(torch: Torch, broker: Broker) -> None:
    begun = ask(kinds=["tasks"]).place
    torch.enqueue("true", role="nobody").cancel()
    place = ask(begun, kinds=["tasks"]).place
    broker.client.delete(keys.NOTICES)
    feed._feeds.clear()
    assert ask(place, 0).missed


def test_nobody_asks_and_the_feed_ends(torch: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "UNWATCHED_SECONDS", 0.1)
    first = feed.feed()
    until(lambda: first.is_over, "it ends")
    assert feed.feed() is not first


def test_an_agent_sees_tasks_and_agents_and_not_what_others_say(torch: Torch, broker: Broker) -> None:
    with acting_as(Caller(agent="developer-1", role="developer")):
        assert ask(kinds=[FlowKind.TASKS, FlowKind.AGENTS]).place
        for kinds in ([], ["messages"], ["tasks", "messages"]):
            with pytest.raises(NotYours, match="it is about what all say"):
                ask(kinds=kinds)


def test_a_place_among_the_changes_of_agents_that_is_none_is_refused(torch: Torch, broker: Broker) -> None:
    page = perform(agents.changes, agents.AwaitChanges())
    asked = time.monotonic()
    while page.agents:  # those that are there, and what the agent of an earlier test still does
        asked = time.monotonic()
        page = perform(agents.changes, agents.AwaitChanges(after=page.place, seconds=0.3))
    assert time.monotonic() - asked < 10
    with pytest.raises(InvalidRequest, match="'7' is no place"):
        perform(agents.changes, agents.AwaitChanges(after="7"))
