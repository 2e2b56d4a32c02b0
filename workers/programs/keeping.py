"""Programs whose conversation keeps a prompt: they get further texts for it, and go on with it after one was killed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch_tasks.model.task import Evidence
from torch_tasks.workers.folders import AttemptFolder, MessageFolder, PromptFolder
from torch_tasks.workers.programs.conversation import GO_ON, KeptPrompt
from torch_tasks.workers.programs.events import EventLog
from torch_tasks.workers.programs.kind import AgentKind, Continuation, ProgramEnding
from torch_tasks.workers.programs.prompt import Prompt, compose_prompt, task_hints
from torch_tasks.workers.programs.submission import Submission
from torch_tasks.workers.programs.turn import Turn, put_ending_aside, read_turn, reported_ending
from torch_tasks.workers.tmux.pane import AgentPane


class KeepingAgent(AgentKind):
    """What goes into a conversation after its first prompt. The abstract part is how anything gets in, and its end."""

    @property
    @abstractmethod
    def log(self) -> EventLog:
        """All events of the program, and the agent's own reports."""

    @abstractmethod
    def disarm(self, words: str) -> Prompt:
        """The words with everything made safe that the program would run or replace itself."""

    @abstractmethod
    def turn(self, submission: Submission) -> Turn:
        """What events report since the prompt was submitted."""

    @abstractmethod
    def step(self, pane: AgentPane, folder: PromptFolder, submission: Submission) -> Submission:
        """Bring the submission one step further."""

    @abstractmethod
    def note_typed(self, folder: PromptFolder) -> None:
        """Note whose text is typed, so that it can be recognised in the composer."""

    @abstractmethod
    def end(self, run: AttemptFolder, turn: Turn, ending: ProgramEnding, answer: str) -> ProgramEnding:
        """Store how the task ended."""

    def kept_prompt(self, submission: Submission, run: PromptFolder) -> KeptPrompt | None:
        """What the conversation holds of the prompt; None if nothing, or if nothing shows it."""
        accepted = read_turn(self.log.since(submission.mark), submission.tag).accepted
        return KeptPrompt() if accepted else None

    def send_back(self, pane: AgentPane, run: AttemptFolder, text: str) -> bool:
        before = Submission.load(run)
        if before is None:
            return False
        self._send_after(before, pane, run, text)
        return True

    def go_on(self, pane: AgentPane, run: AttemptFolder) -> Continuation:
        before = Submission.load(run)
        kept = self.kept_prompt(before, run) if before else None
        if before is None or kept is None:
            return Continuation.NOT_KEPT
        turn = self.turn(before)
        if turn.report:
            self.end(run, turn, *reported_ending(turn))
            return Continuation.ANSWERED
        if kept.answer is not None:
            evidence = Evidence(kind="stop_event", detail=str(Continuation.ANSWERED), passed=True)
            self.end(run, turn, ProgramEnding(evidence), kept.answer)
            return Continuation.ANSWERED
        self._send_after(before, pane, run, GO_ON.format(what="task", prompt=run.prompt))
        return Continuation.RESUMED

    def go_on_with_message(self, pane: AgentPane, letter: MessageFolder) -> tuple[Continuation, str]:
        before = Submission.load(letter)
        kept = self.kept_prompt(before, letter) if before else None
        if before is None or kept is None:
            return Continuation.NOT_KEPT, ""
        if kept.answer is not None:
            return Continuation.ANSWERED, kept.answer
        text = GO_ON.format(what="message", prompt=letter.prompt)
        self.note_typed(letter)
        submission = self._submission_after(before, letter, text, letter.hints)
        self.step(pane, letter, submission)
        return Continuation.RESUMED, ""

    def submissions(self, run: AttemptFolder) -> int:
        submission = Submission.load(run)
        return submission.round if submission else 0

    def _send_after(self, before: Submission, pane: AgentPane, run: AttemptFolder, text: str) -> None:
        """Give the program a further text for the attempt."""
        submission = self._submission_after(before, run, text, task_hints(run.task_id))
        put_ending_aside(run, before.round)
        self.step(pane, run, submission)

    def _submission_after(
        self, before: Submission, folder: PromptFolder, text: str, hints: Sequence[str]
    ) -> Submission:
        """The next submission of an attempt or a message, with a further text."""
        file = folder.folder / f"round.{before.round + 1}"
        prompt = compose_prompt(text, folder.tag, self.config.prompt, file=file, hints=hints, disarm=self.disarm)
        file.write_bytes(text.encode())
        return Submission.create(folder, prompt.text, self.log.mark(), "; ".join(prompt.notes), before.round + 1)
