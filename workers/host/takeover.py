"""A person who types into the agent's pane from elsewhere, while Torch leaves it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_tasks.caller import caller
from torch_tasks.errors import AgentUnavailable
from torch_tasks.workers.host.presence import AgentPresence
from torch_tasks.workers.host.screen_publisher import ScreenPublisher
from torch_tasks.workers.host.terminal import Terminal
from torch_tasks.workers.tmux.delivery import typeable
from torch_tasks.workers.tmux.pane import AgentPane


@dataclass(frozen=True)
class PaneTakeover:
    """What a person does at the pane; each act is of the one who asks for it."""

    terminal: Terminal
    presence: AgentPresence
    screen: ScreenPublisher
    on_change: Callable[[], None]
    """The pane was taken, or given back: those who wait for it look."""

    def take(self) -> None:
        """From now on Torch types nothing, and no task or message begins."""
        self._living_pane()
        self.terminal.keyboard.take(caller().name)
        self.show()

    def give_back(self) -> None:
        self.terminal.keyboard.give_back(caller().name)
        self.show()

    def stay(self) -> str:
        """Who has taken the pane over; the one who asks has it for another while."""
        self.terminal.keyboard.stay(caller().name)
        return self.terminal.keyboard.person

    def type(self, text: str, keys: tuple[str, ...]) -> None:
        """Type the text as it would be by hand, then press the keys."""
        with self.terminal.keyboard.typing(caller().name):
            self._living_pane().type_by_hand(text, keys)
        self.screen.look_now()

    def paste(self, text: str) -> None:
        """Give the program the text as one paste."""
        with self.terminal.keyboard.typing(caller().name):
            self._living_pane().paste(typeable(text))
        self.screen.look_now()

    def show(self) -> None:
        """Show the fleet whose the pane is, if that has changed."""
        person = self.terminal.keyboard.person
        if person != self.presence.info.taken_over:
            self.presence.publish(taken_over=person)
            self.on_change()

    def _living_pane(self) -> AgentPane:
        if not self.terminal.is_alive:
            raise AgentUnavailable("its program has ended, so there is nothing to type into")
        return self.terminal.pane
