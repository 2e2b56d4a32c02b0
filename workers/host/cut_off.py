"""An attempt or a message whose program was killed: whether another program goes on with it, and how."""

from __future__ import annotations

from pathlib import Path

from torch_tasks.workers.folders import AttemptFolder, CutOff, MessageFolder, MessageTaken
from torch_tasks.workers.host.attempt_end import AttemptEnd, AttemptFacts, what_ends
from torch_tasks.workers.host.hosted_agent import HostedAgent
from torch_tasks.workers.programs.kind import Continuation

#: What may end the attempt beside its program's death without anybody having given it up.
_STILL_WANTED = (None, AttemptEnd.LEAVING, AttemptEnd.STANDS_STILL)


class CutOffAttempt:
    """One attempt, from the death of its program until the next one has taken it up. It may be taken up once."""

    def __init__(self, agent: HostedAgent, folder: AttemptFolder) -> None:
        self._agent = agent
        self._folder = folder

    @property
    def is_open(self) -> bool:
        """Whether its program was killed, and no other was asked to go on."""
        cut_off = self._folder.cut_off
        return cut_off is not None and self._agent.kind.submissions(self._folder) == cut_off.round

    @property
    def place(self) -> Path:
        """The folder in which its program was, and the next one is to be."""
        presence = self._agent.presence
        return Path(presence.journal.folder or presence.info.workdir)

    def note(self) -> bool:
        """Note that its program is dead; false if no other may go on with it, or one has already."""
        kind, folder = self._agent.kind, self._folder
        conversation = kind.conversation
        if conversation is None or not folder.begun.exists() or not kind.is_kept(conversation):
            return False
        if folder.cut_off is None:
            folder.note_cut_off(CutOff(conversation=conversation, round=kind.submissions(folder)))
        return self.is_open

    def note_if_wanted(self, facts: AttemptFacts) -> bool:
        """:meth:`note`, unless the attempt is given up for another reason, or died of its limits."""
        if what_ends(facts._replace(is_alive=True)) not in _STILL_WANTED:
            return False
        return self._agent.guard.why(self._folder) is None and self.note()

    def take_up(self) -> Continuation:
        """Have the new program, which is free, go on with it if it has its conversation."""
        cut_off = self._folder.cut_off
        if cut_off is None or self._agent.presence.journal.conversation != cut_off.conversation:
            return Continuation.NOT_KEPT
        return self._agent.kind.go_on(self._agent.terminal.pane, self._folder)


class CutOffMessage:
    """One message that a program works on, or worked on when it was killed."""

    def __init__(self, agent: HostedAgent, folder: MessageFolder) -> None:
        self._agent = agent
        self._folder = folder

    def note_taken(self, *, is_resumed: bool = False) -> None:
        """Note that the program in the pane works on it."""
        journal = self._agent.presence.journal
        taken = MessageTaken(session=journal.session, conversation=self._agent.kind.conversation, is_resumed=is_resumed)
        self._folder.note_taken(taken)

    @property
    def is_open(self) -> bool:
        """Whether its program is not the one in the pane, and ended without an answer."""
        taken = self._folder.taken
        if taken is None or taken.session == self._agent.presence.journal.session:
            return False
        return self._agent.kind.message_answer(self._folder) is None

    def take_up(self) -> tuple[Continuation, str]:
        """Have the new program, which is free, go on with it once, in its conversation; with its whole answer."""
        taken, kind = self._folder.taken, self._agent.kind
        if taken is None or taken.is_resumed or taken.conversation is None or taken.conversation != kind.conversation:
            return Continuation.NOT_KEPT, ""
        how, answer = kind.go_on_with_message(self._agent.terminal.pane, self._folder)
        if how is Continuation.RESUMED:
            self.note_taken(is_resumed=True)
        return how, answer
