"""The session of one agent program that speaks the Agent Client Protocol, from its beginning to its end.

It gives the program prompts, draws what comes of them, and reports the turns and questions as events.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from acp import PROTOCOL_VERSION, RequestError, text_block
from acp.client import ClientSideConnection
from acp.schema import (
    AgentMessageChunk,
    AgentPlanUpdate,
    AgentThoughtChunk,
    AllowedOutcome,
    ClientCapabilities,
    CurrentModeUpdate,
    DeniedOutcome,
    Implementation,
    InitializeResponse,
    LoadSessionResponse,
    NewSessionResponse,
    PermissionOption,
    PromptResponse,
    RequestPermissionResponse,
    ResumeSessionResponse,
    TextContentBlock,
    ToolCallProgress,
    ToolCallStart,
    ToolCallUpdate,
    UsageUpdate,
    UserMessageChunk,
)
from pydantic import ValidationError

from torch_tasks.model.agent import AgentState
from torch_tasks.model.task import LASTING, Question
from torch_tasks.workers.programs.acp.door import Given, PaneStart, PaneStatus
from torch_tasks.workers.programs.acp.open_requests import OpenQuestion, OpenTurn
from torch_tasks.workers.programs.acp.stream import (
    AUTH_REQUIRED,
    AnyUpdate,
    StreamDrawing,
    failed_turn,
    usage_of,
    words_of,
)
from torch_tasks.workers.programs.acp.view import PaneView, shortened
from torch_tasks.workers.programs.answering import Answered
from torch_tasks.workers.programs.events import EventKind, ProgramEvent
from torch_tasks.workers.programs.questions import understand_answer

_ENDS = {
    "max_tokens": "the answer reached the most tokens that the model may use",
    "max_turn_requests": "the turn reached the most requests that the agent may make",
    "refusal": "the agent refuses to go on",
}
#: Updates by which the program shows that it works on the prompt.
_WORK = (AgentMessageChunk, AgentThoughtChunk, ToolCallStart, ToolCallProgress, AgentPlanUpdate)
_AGAIN = "I have logged in elsewhere: try again"

OpenedSession = NewSessionResponse | LoadSessionResponse | ResumeSessionResponse


class Unusable(Exception):
    """The agent's program cannot be used; the words say why, and what to do."""


class AcpSession:
    """One session. All of it happens in one thread, between the awaits."""

    def __init__(self, start: PaneStart, folder: str, view: PaneView, report: Callable[[ProgramEvent], None]) -> None:
        self._start = start
        self._folder = folder
        self._view = view
        self._report = report
        self._agent: ClientSideConnection
        self._hello: InitializeResponse
        self._state, self._rule = AgentState.STARTING, "initialize"
        self._asked: list[OpenQuestion] = []
        self._turn: OpenTurn | None = None
        self._running: asyncio.Task[None] | None = None
        self._given: set[str] = set()
        self._stream = StreamDrawing(view)
        self._is_changed = False
        """A choice that lasts was taken."""
        self._mode: str | None = None
        self._first_mode: str | None = None
        self._replayed = ""
        """The last prompt in the session that is gone on with."""
        self._is_replaying_prompt = False
        self._cost: float | None = None
        self._charged: float = 0.0
        self.session = ""
        self.resumed = False
        self.on_change: Callable[[], None] = lambda: None
        """Called when the state has changed."""

    # ── the beginning ────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, agent: ClientSideConnection) -> None:
        """Greet the program and open a session; :class:`Unusable` if that cannot be."""
        self._agent = agent
        self._hello = await self._greet()
        self._view.show(f"{self._name}, session {await self._open()}", "── ")
        self._become(AgentState.READY, "session")

    async def _greet(self) -> InitializeResponse:
        torch = Implementation(name="torch-tasks", title="Torch", version="1")
        try:
            hello = await self._agent.initialize(PROTOCOL_VERSION, ClientCapabilities(), torch)
        except (RequestError, ValidationError) as error:
            why = f"its answer to `initialize` is none of version {PROTOCOL_VERSION}: {words_of(error)}"
            raise Unusable(f"{self._program} cannot be used: {why}") from None
        if hello.protocol_version != PROTOCOL_VERSION:
            raise Unusable(
                f"{self._program} speaks version {hello.protocol_version} of the Agent Client Protocol, and Torch "
                f"speaks version {PROTOCOL_VERSION}; install a release of it that does, or a newer Torch"
            )
        return hello

    @property
    def _program(self) -> str:
        return " ".join(self._start.command)

    @property
    def _name(self) -> str:
        info = self._hello.agent_info
        return f"{info.name} {info.version}" if info else self._program

    async def _open(self) -> str:
        """Open a session, after a login if the program wants one; returns its id."""
        wanted = self._start.auth
        while True:
            try:
                opened = await self._go_on() or await self._open_new()
                await self._set_up(opened)
                return self.session
            except RequestError as error:
                if error.code != AUTH_REQUIRED:
                    raise Unusable(f"{self._name} opened no session: {words_of(error)}") from None
            await self._log_in(wanted)
            wanted = None

    @property
    def is_kept(self) -> bool:
        """Whether a later program can go on with the session."""
        return self._can_load or self._can_resume

    @property
    def _can_load(self) -> bool:
        can = self._hello.agent_capabilities
        return bool(can and can.load_session)

    @property
    def _can_resume(self) -> bool:
        can = self._hello.agent_capabilities
        return bool(can and can.session_capabilities and can.session_capabilities.resume)

    async def _go_on(self) -> OpenedSession | None:
        """Go on with the former program's session; None if there is none, or it is gone."""
        session = self._start.session
        if session is None or not self.is_kept:
            return None
        self._rule = "session/load" if self._can_load else "session/resume"
        try:
            opened: OpenedSession
            if self._can_load:
                opened = await self._agent.load_session(self._folder, session, [])
            else:
                opened = await self._agent.resume_session(session, self._folder, mcp_servers=[])
        except (RequestError, ValidationError) as error:
            if isinstance(error, RequestError) and error.code == AUTH_REQUIRED:
                raise
            self._view.show(f"cannot go on with session {session}, so a new one begins: {words_of(error)}", "── ")
            return None
        self.session, self.resumed = session, True
        if self._replayed:
            self._report(ProgramEvent(EventKind.ACCEPTED, text=self._replayed, origin="acp session/load"))
        return opened

    async def _open_new(self) -> OpenedSession:
        self._rule = "session/new"
        opened = await self._agent.new_session(self._folder, mcp_servers=[])
        self.session = opened.session_id
        return opened

    async def _set_up(self, opened: OpenedSession) -> None:
        """Set the mode and the model that the kind's file names; :class:`Unusable` if there is none of this name."""
        if mode := self._start.mode:
            if opened.modes or not self.resumed:  # a session that is gone on with need not name its modes again
                modes = [one.id for one in opened.modes.available_modes] if opened.modes else []
                _require(mode, modes, "mode", self._name)
            await self._agent.set_session_mode(self.session, mode)
        self._first_mode = self._mode = mode or (opened.modes.current_mode_id if opened.modes else self._mode)
        if model := self._start.model:
            options = [one for one in opened.config_options or () if one.category == "model" and one.type == "select"]
            chosen = [(one.id, choice.value) for one in options for choice in _choices(one) if choice.value == model]
            _require(model, [choice.value for one in options for choice in _choices(one)], "model", self._name)
            await self._agent.set_config_option(chosen[0][0], self.session, model)

    async def _log_in(self, method: str | None) -> bool:
        """Authenticate by this method, else by the one that a person chooses; false if that was cancelled."""
        methods = list(self._hello.auth_methods or ())
        if method is None:
            names = [f"{one.name}: {one.description}" if one.description else one.name for one in methods]
            question = Question(text=f"{self._name} wants a login. How?", choices=(*names, _AGAIN))
            index = await self._ask(OpenQuestion(question, ()), AgentState.LOGIN)
            if index is None or index >= len(methods):
                return index is not None
            method = methods[index].id
        self._become(AgentState.LOGIN, f"authenticate {method}")
        try:
            await self._agent.authenticate(method)
        except (RequestError, ValidationError) as error:
            self._view.show(f"{method}: {words_of(error)}", "✗ ")
        return True

    # ── its state ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def status(self) -> PaneStatus:
        """What the program does now."""
        question = self._asked[0].question if self._asked else None
        return PaneStatus(
            life=self._start.life,
            state=self._state,
            rule=self._rule,
            question=question,
            resumed=self.resumed,
            is_changed=self._is_changed or self._mode != self._first_mode,
        )

    def _become(self, state: AgentState, rule: str) -> None:
        self._state, self._rule = state, rule
        self.on_change()

    # ── a turn ───────────────────────────────────────────────────────────────────────────────────────────────────

    def give(self, life: str, number: str, text: str) -> Given:
        """Give the program a prompt of the worker's."""
        if life != self._start.life:
            return Given.GONE
        if number in self._given:
            return Given.TAKEN
        if not self._begin_turn(text):
            return Given.BUSY
        self._given.add(number)
        return Given.TAKEN

    def _begin_turn(self, text: str) -> bool:
        if self._state is not AgentState.READY:
            return False
        self._turn = OpenTurn(text)
        self._view.show(shortened(text), "> ", "  ")
        self._become(AgentState.WORKING, "session/prompt")
        self._running = asyncio.create_task(self._run(self._turn))
        return True

    async def _run(self, turn: OpenTurn) -> None:
        """One turn, from its prompt to the report of how it ended."""
        try:
            ended = await self._prompt(turn)
        except OSError:
            return  # the program has ended, and so does this one
        self._accept()
        self._turn = None
        self._view.show(ended.text if ended.kind is EventKind.FAILED else ended.origin, "── ")
        self._become(AgentState.READY, "session")
        self._report(ended)

    async def _prompt(self, turn: OpenTurn) -> ProgramEvent:
        """Give the program the prompt, and again after a login that it wants first; returns how the turn ended."""
        while True:
            try:
                return self._ending(turn, await self._agent.prompt(self.session, [text_block(turn.text)]))
            except (RequestError, ValidationError) as error:
                ended = failed_turn(error)
                if ended.error != "login":
                    return ended
            self._view.show(ended.text, "✗ ")
            if not await self._log_in(None):
                return ProgramEvent(EventKind.INTERRUPTED, text=turn.whole_answer, origin="acp cancelled")
            self._become(AgentState.WORKING, "session/prompt")

    def _ending(self, turn: OpenTurn, response: PromptResponse) -> ProgramEvent:
        self._accept()
        if usage := usage_of(response, self._cost_of_turn()):
            self._report(ProgramEvent(EventKind.USAGE, usage=usage, origin="acp usage"))
        reason, answer = response.stop_reason, turn.whole_answer
        origin = f"acp {reason}"
        if reason == "end_turn":
            return ProgramEvent(EventKind.STOPPED, text=answer, origin=origin)
        if reason == "cancelled":
            return ProgramEvent(EventKind.INTERRUPTED, text=answer, origin=origin)
        return ProgramEvent(EventKind.FAILED, text=_ENDS[reason], error="other", origin=origin)

    def _cost_of_turn(self) -> float | None:
        """What the session cost since the last turn, if the program says what it costs."""
        if self._cost is None:
            return None
        before, self._charged = self._charged, self._cost
        return self._cost - before

    def _accept(self) -> None:
        """Report that the program has the prompt, once."""
        if self._turn and not self._turn.accepted:
            self._turn.accepted = True
            self._report(ProgramEvent(EventKind.ACCEPTED, text=self._turn.text, origin="acp"))

    def _note_replayed(self, update: AnyUpdate) -> None:
        match update:
            case UserMessageChunk(content=TextContentBlock(text=text)):
                self._replayed = self._replayed + text if self._is_replaying_prompt else text
        self._is_replaying_prompt = isinstance(update, UserMessageChunk)

    def _note_tool(self, update: AnyUpdate) -> None:
        if self._turn and self._stream.is_new(update):
            self._turn.begin_tool()

    async def cancel(self) -> None:
        """Have the program end its turn; what it asks is answered with the cancellation."""
        if self._turn is None:
            return
        for asked in self._asked:
            if not asked.answer.done():
                asked.answer.set_result(None)
        with contextlib.suppress(OSError):
            await self._agent.cancel(self.session)

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    async def request_permission(
        self, session_id: str, tool_call: ToolCallUpdate, options: list[PermissionOption], **_: Any
    ) -> RequestPermissionResponse:
        """The program asks for a permission."""
        self._accept()
        self._note_tool(tool_call)
        tool = self._stream.learn(tool_call)
        self._stream.draw_content(tool_call)
        choices = tuple(option.name for option in options)
        lasting = tuple(number for number, option in enumerate(options, 1) if option.kind.endswith("_always"))
        question = Question(text=f"{tool.name}?", choices=choices, subject=tool.subject, lasting=lasting)
        index = await self._ask(OpenQuestion(question, options), AgentState.WAITING)
        if index is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        self._is_changed |= index + 1 in lasting
        chosen = AllowedOutcome(outcome="selected", option_id=options[index].option_id)
        return RequestPermissionResponse(outcome=chosen)

    async def _ask(self, asked: OpenQuestion, state: AgentState) -> int | None:
        """Wait for the answer, behind the questions that were asked before; returns the index of the choice."""
        self._asked.append(asked)
        if asked is self._asked[0]:
            self._show_question(asked, state)
        index = await asked.answer
        self._asked.remove(asked)
        self._view.show(asked.question.choices[index] if index is not None else "cancelled", "↳ ")
        if self._turn:
            self._report(ProgramEvent(EventKind.RESOLVED, origin="acp"))
        if self._asked:
            self._show_question(self._asked[0], state)
        elif self._turn:
            self._become(AgentState.WORKING, "session/prompt")
        return index

    def _show_question(self, asked: OpenQuestion, state: AgentState) -> None:
        question = asked.question
        self._view.show(question.text, "? ")
        for number, choice in enumerate(question.choices, 1):
            self._view.show(choice + (LASTING if number in question.lasting else ""), f"  {number}. ")
        self._become(state, "authenticate" if state is AgentState.LOGIN else "session/request_permission")
        if self._turn:
            self._report(ProgramEvent(EventKind.QUESTION, question=question, origin="acp"))

    def permit(self, question: Question, *, allowed: bool) -> Answered:
        """Allow or deny this one time. A request that nothing denies once can be cancelled."""
        asked = self._open_question(question)
        if asked is None:
            return Answered.NOT_GIVEN
        index = asked.once(allowed=allowed)
        if index is None and allowed:
            return Answered.NO_SUCH_CHOICE
        asked.answer.set_result(index)
        return Answered.GIVEN

    def choose(self, question: Question, number: int) -> bool:
        """Take this choice of the question, counted from one."""
        asked = self._open_question(question)
        if asked is None or not 1 <= number <= len(asked.question.choices):
            return False
        asked.answer.set_result(number - 1)
        return True

    def _open_question(self, question: Question) -> OpenQuestion | None:
        asked = self._asked[0] if self._asked else None
        return asked if asked and asked.question == question and not asked.answer.done() else None

    # ── what a person types ──────────────────────────────────────────────────────────────────────────────────────

    def take_line(self, line: str) -> None:
        """A line that a person typed: the answer to the open question, or a prompt."""
        if not line.strip():
            return
        if not self._asked:
            if not self._begin_turn(line):
                self._view.show("the agent is at work; C-c interrupts it", "── ")
            return
        question, words = self._asked[0].question, line.strip().casefold()
        if words in ("allow", "deny") and question.subject:
            is_taken = self.permit(question, allowed=words == "allow") is Answered.GIVEN
        else:
            reply = understand_answer(line, question, None)
            is_taken = reply is not None and self.choose(question, reply.numbers[0])
        if not is_taken:
            self._view.show(f"{line}: type the number of a choice", "── ")

    # ── what the program sends ───────────────────────────────────────────────────────────────────────────────────

    async def session_update(self, session_id: str, update: AnyUpdate, **_: Any) -> None:
        """Something happened in the session."""
        if self._turn and isinstance(update, _WORK):
            self._accept()
        self._note_tool(update)
        if self._turn is None:
            self._note_replayed(update)
        match update:
            case AgentMessageChunk(content=TextContentBlock(text=text)) if self._turn:
                self._turn.answer += text
            case CurrentModeUpdate(current_mode_id=mode):
                self._mode, self._first_mode = mode, self._first_mode or mode
            case UsageUpdate(cost=cost) if cost and cost.currency == "USD":
                self._cost = cost.amount
        self._stream.draw(update, prompts=self._turn is None)


def _choices(option: Any) -> list[Any]:
    """The values of an option of the session, without their groups."""
    return [one for entry in option.options for one in (entry.options if hasattr(entry, "options") else [entry])]


def _require(wanted: str, there: list[str], what: str, name: str) -> None:
    if wanted not in there:
        choices = f"there are: {', '.join(there)}" if there else f"it offers no {what}s"
        raise Unusable(f"{name} has no {what} {wanted!r}; {choices}; correct `{what}` in the kind's file")
