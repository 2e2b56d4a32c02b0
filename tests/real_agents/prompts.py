"""The prompts that a fleet gives a real CLI, and the check that each reaches its model once and exactly."""

from __future__ import annotations

from collections.abc import Callable

from hosted import Hosted

from torch_tasks import TaskState
from torch_tasks.workers.certify.fake_model.steps import Text, Tokens
from torch_tasks.workers.certify.prompts import HOSTILE_PROMPTS, RAN_LOCALLY, HostilePrompt

ODD_PROMPTS = (
    *HOSTILE_PROMPTS,
    HostilePrompt("one-character", "x"),
    HostilePrompt("hash", "# a heading, not a memory"),
    HostilePrompt("dash", "-n --help -- -x"),
    HostilePrompt("enter", "Enter"),
    HostilePrompt("blanks", "  begins and ends with blanks  "),
)


ANSWER = "The answer:\n\n```sh\necho ─ │ ❯ ✻ ✦ 'x'\n```\nand that is all."


def check_odd_prompts(agent: Hosted, kept: Callable[[str], str], answer: str, *, counts: bool) -> None:
    """The model receives each of them once and exactly, or ``kept`` as this CLI keeps it, and its answer comes back.

    With ``counts``, the CLI reports the model's own counts of tokens.
    """
    before = len(agent.llm.prompts(agent.home.key))
    rule = agent.llm.on("torch task odd-", Tokens(1000, 50), Text(answer))
    tasks = {odd.name: agent.give(odd.prompt, id=f"odd-{odd.name}") for odd in ODD_PROMPTS}
    for odd in ODD_PROMPTS:
        task = tasks[odd.name]
        result = task.result(timeout=120)
        assert (odd.name, result.status, result.answer) == (odd.name, TaskState.SUCCEEDED, answer)
        assert result.evidence[0].kind == "stop_event"
        assert result.usage
        assert not counts or (result.usage.input_tokens, result.usage.output_tokens) == (1000, 50)
        received = agent.received(task.id)
        came = [(request.time, agent.llm.outcome(request)) for request in agent.requests(task.id)]
        assert len(received) == 1, f"{odd.name} arrived {len(received)} times; the requests, and how each ended: {came}"
        assert f"{kept(odd.arrives)}\n\n[torch task {task.id} " in received[0]
        notes = agent.notes(task)
        assert all(any(note.startswith(fact) for note in notes) for fact in ("staged", "submitted", "accepted")), notes
    assert len(agent.llm.prompts(agent.home.key)) == before + len(ODD_PROMPTS)
    assert not (agent.home.work / RAN_LOCALLY).exists()
    agent.llm.off(rule)
