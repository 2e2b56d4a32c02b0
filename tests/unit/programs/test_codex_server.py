"""A prompt's way through Codex's server, whatever hangs up or is killed: it comes once, or is typed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.app_server import CONVERSATION, FakeAppServer
from machine import short_folder

from torch_tasks.model.agent import AgentState
from torch_tasks.workers.folders import AttemptFolder
from torch_tasks.workers.programs.codex.door import Delivery
from torch_tasks.workers.programs.codex.server import CodexServer, DoorShut
from torch_tasks.workers.programs.events import EventKind, ProgramEvent
from torch_tasks.workers.programs.submission import Submission, SubmissionPhase

CODEX = "torch_tasks.workers.programs.codex"


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def theirs(folder: Path) -> Iterator[FakeAppServer]:
    server = FakeAppServer(folder).start()
    yield server
    server.end()


@pytest.fixture
def server(folder: Path) -> Iterator[CodexServer]:
    server = CodexServer(folder, lambda: None, lambda path: path)
    yield server
    server.forget()


@pytest.fixture
def run(folder: Path) -> AttemptFolder:
    run = AttemptFolder(folder / "runs", "t-1", 1)
    run.open()
    return run


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CODEX}.door.AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(f"{CODEX}.door.LOST_SECONDS", 0.0)
    monkeypatch.setattr(f"{CODEX}.server._AWAY_SECONDS", 0.0)
    monkeypatch.setattr(f"{CODEX}.server._CALL_SECONDS", 0.5)


@pytest.fixture
def submission(run: AttemptFolder) -> Submission:
    return Submission.create(run, "do it\n\n[torch task t-1]", "", "")


def advance(server: CodexServer, run: AttemptFolder, looks: int = 4) -> Submission:
    """Look some times, each time as a worker that knows only what is on the disk."""
    for _ in range(looks):
        submission = Submission.load(run)
        assert submission
        if submission.phase.may_become:
            Delivery(server, run, submission).advance(submission)
    submission = Submission.load(run)
    assert submission
    return submission


class TestDelivery:
    def test_a_prompt_is_given_once_and_known_by_its_id(
        self, server: CodexServer, theirs: FakeAppServer, run: AttemptFolder, submission: Submission
    ) -> None:
        done = advance(server, run)
        assert (done.phase, done.confirmed) == (SubmissionPhase.ACCEPTED, True)
        assert [step.phase for step in done.steps] == ["intended", "staged", "submitted", "accepted"]
        assert theirs.prompts == [(run.folder / "message.1").read_text()]
        assert theirs.turns[0]["items"][0]["content"][0]["text"] == submission.text(run)

    def test_it_waits_while_something_else_goes_on(
        self, server: CodexServer, theirs: FakeAppServer, run: AttemptFolder, submission: Submission
    ) -> None:
        server.say(CONVERSATION, "a-persons", "my own words")
        assert advance(server, run).phase is SubmissionPhase.INTENDED
        theirs.end_turn()
        assert advance(server, run).phase is SubmissionPhase.ACCEPTED
        assert len(theirs.prompts) == 2

    @pytest.mark.parametrize("fault", ["hangs_up_before", "hangs_up_after", "silent"])
    def test_a_server_that_fails_in_the_middle_has_it_once(
        self, server: CodexServer, theirs: FakeAppServer, run: AttemptFolder, submission: Submission, fault: str
    ) -> None:
        getattr(theirs, fault).add("turn/start")
        with pytest.raises(DoorShut):
            advance(server, run)
        begun = Submission.load(run)
        assert begun
        assert begun.phase is SubmissionPhase.SUBMITTED
        assert run.begun.exists()
        getattr(theirs, fault).clear()
        assert advance(server, run).phase is SubmissionPhase.ACCEPTED
        assert len(theirs.prompts) == 1

    @pytest.mark.parametrize("phase", [SubmissionPhase.STAGED, SubmissionPhase.SUBMITTED])
    def test_a_worker_that_was_killed_before_it_gave_it_has_the_next_one_give_it(
        self, server: CodexServer, theirs: FakeAppServer, run: AttemptFolder, submission: Submission, phase: str
    ) -> None:
        (run.folder / "message.1").write_text("torch-1")
        submission = submission.advance_to(run, SubmissionPhase.STAGED, "")
        if phase is SubmissionPhase.SUBMITTED:
            submission.advance_to(run, SubmissionPhase.SUBMITTED, "")
        assert advance(server, run).phase is SubmissionPhase.ACCEPTED
        assert theirs.prompts == ["torch-1"]

    def test_a_prompt_that_is_perhaps_on_its_way_is_not_given_again(
        self,
        server: CodexServer,
        theirs: FakeAppServer,
        run: AttemptFolder,
        submission: Submission,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(f"{CODEX}.door.AGAIN_SECONDS", 60.0)
        (run.folder / "message.1").write_text("torch-1")
        submission = submission.advance_to(run, SubmissionPhase.STAGED, "")
        submission.advance_to(run, SubmissionPhase.SUBMITTED, "")
        assert advance(server, run).phase is SubmissionPhase.SUBMITTED
        assert theirs.prompts == []

    def test_a_prompt_that_the_server_refuses_is_typed(
        self, server: CodexServer, theirs: FakeAppServer, run: AttemptFolder, submission: Submission
    ) -> None:
        theirs.refuses.add("turn/start")
        refused = advance(server, run, looks=1)
        assert (refused.phase, refused.steps[-1].evidence) == (
            SubmissionPhase.INTENDED,
            "it refuses turn/start: no turn/start today",
        )
        delivery = Delivery(server, run, refused)
        assert (delivery.may_begin, delivery.has_begun) == (False, False)
        assert theirs.prompts == []

    def test_what_became_of_a_prompt_at_a_dead_server_is_asked_of_the_hooks(
        self, server: CodexServer, theirs: FakeAppServer, run: AttemptFolder, submission: Submission
    ) -> None:
        submission = advance(server, run, looks=1)
        assert submission.phase is SubmissionPhase.SUBMITTED
        theirs.end()
        delivery = Delivery(server, run, submission)
        with pytest.raises(DoorShut):
            delivery.advance(submission)
        assert delivery.has_begun
        hook = ProgramEvent(EventKind.ACCEPTED, text="do it", origin="hook UserPromptSubmit")
        known = delivery.without_server(submission, hook)
        assert (known.phase, known.confirmed) == (SubmissionPhase.ACCEPTED, True)
        assert delivery.without_server(submission, None).phase is SubmissionPhase.INDETERMINATE


class TestServer:
    def test_its_state_and_turns(self, server: CodexServer, theirs: FakeAppServer) -> None:
        conversation = server.conversation()
        assert (conversation, server.state(conversation)) == (CONVERSATION, AgentState.READY)
        assert server.last_turn(conversation) == ""
        server.say(conversation, "m-1", "hello")
        assert server.state(conversation) is AgentState.WORKING
        assert server.has(conversation, "m-1")
        assert not server.has(conversation, "m-2")
        server.interrupt(conversation)
        assert theirs.turns[0]["status"] == "interrupted"
        for number in range(20):
            server.say(conversation, f"more-{number}", "more")
            theirs.end_turn()
        since = server.turns_since(conversation, "turn-002")
        assert [turn["id"] for turn in since] == [f"turn-{number:03}" for number in range(3, 21)]

    def test_it_is_not_used_by_a_release_before_the_first_known(
        self, server: CodexServer, theirs: FakeAppServer
    ) -> None:
        theirs.release = "0.168.9"
        with pytest.raises(DoorShut, match=r"0\.168\.9"):
            server.conversation()
        assert theirs.asked == ["initialize"]

    @pytest.mark.parametrize(
        ("method", "answer"),
        [
            ("initialize", {"agent": "codex"}),
            ("initialize", {"userAgent": "codex"}),
            ("thread/loaded/list", {"threads": [CONVERSATION]}),
            ("thread/read", {"thread": {"id": CONVERSATION, "status": "idle"}}),
            ("thread/read", {"thread": {"ephemeral": False, "parentThreadId": None, "status": {"type": "dreams"}}}),
        ],
    )
    def test_what_it_answers_in_another_form_shuts_the_door(
        self, server: CodexServer, theirs: FakeAppServer, method: str, answer: object
    ) -> None:
        theirs.answers[method] = answer
        with pytest.raises(DoorShut):
            server.state(server.conversation())

    def test_it_is_not_used_while_it_does_not_say_which_conversation_is_shown(
        self, server: CodexServer, theirs: FakeAppServer
    ) -> None:
        theirs.conversations.append("conversation-2")
        with pytest.raises(DoorShut, match="2 conversations"):
            server.conversation()

    def test_there_is_none(self, server: CodexServer) -> None:
        with pytest.raises(DoorShut, match="does not run"):
            server.conversation()
        assert not server.is_gone()

    def test_a_prompt_is_found_in_a_conversation_that_is_kept_in_a_box(
        self, theirs: FakeAppServer, folder: Path
    ) -> None:
        theirs.seen = Path("/in/the/box")
        server = CodexServer(folder, lambda: None, lambda path: folder / path.name)
        server.say(CONVERSATION, "m-1", "hello")
        assert server.has(CONVERSATION, "m-1")
        server.forget()

    def test_its_socket_may_lie_deeper_than_a_sockets_path_is_long(
        self, server: CodexServer, theirs: FakeAppServer, folder: Path
    ) -> None:
        """As in a box, where it is below the agent's own folder of temporary files."""
        deep = folder / ("x" * 120)
        deep.mkdir()
        (folder / "door").rename(deep / "socket")
        (folder / "door").symlink_to(deep / "socket")
        assert server.conversation() == CONVERSATION

    def test_a_dead_one_is_gone(self, server: CodexServer, theirs: FakeAppServer, folder: Path) -> None:
        pid = folder / "server.pid"
        pid.write_text("1\n")
        assert not server.is_gone()
        pid.write_text("4194304\n")  # the largest that Linux gives is one less
        assert server.is_gone()
        pid.unlink()
        assert server.is_gone()

    def test_it_asks_until_somebody_answers(self, server: CodexServer, theirs: FakeAppServer) -> None:
        server.say(CONVERSATION, "m-1", "hello")
        assert server.requests(CONVERSATION) == []
        request = {"id": 7, "method": "item/fileChange/requestApproval", "params": {"threadId": CONVERSATION}}
        theirs.ask(request)
        theirs.ask({"id": 8, "method": "item/tool/call", "params": {"threadId": "another"}})
        server.last_turn(CONVERSATION)  # it is answered after what was asked
        assert server.requests(CONVERSATION) == [request]
        theirs.ask({"method": "serverRequest/resolved", "params": {"threadId": CONVERSATION, "requestId": 7}})
        server.last_turn(CONVERSATION)
        assert server.requests(CONVERSATION) == []
