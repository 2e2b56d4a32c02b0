"""What became of each prompt while something went wrong: with Torch, and with the old script in the same run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Timer
from typing import Any

from fakes.cli.client import FakeCli
from fakes.cli.scenario import Faults, Looks, Scenario, Turn, Ways
from fakes.cli.steps import Permission, Say, Shell, Storm, Work

from benchmarks.fake_agents import SILENT, TELLING, fake_agents
from benchmarks.harness import READY_SECONDS, Stage, await_true
from benchmarks.lanes import Lane, ScriptLane, TorchLane
from benchmarks.measures import Measure
from benchmarks.old_script import OldScript
from torch_tasks.errors import TorchError

PERSON = "a person's own words, not"
ASIDE = "what a person asks it, between"
TYPED_WITHIN = 0.1


# ── the faults ───────────────────────────────────────────────────────────────────────────────────────────────────

Trial = Callable[[Lane, Sequence[str]], list[bool]]


def one_by_one(lane: Lane, words: Sequence[str]) -> list[bool]:
    """Each is sent when the one before has come through."""
    return [lane.send(text) for text in words]


def two_senders(lane: Lane, words: Sequence[str]) -> list[bool]:
    """Two send at the same time."""
    with ThreadPoolExecutor(2) as senders:
        return [said for at in range(0, len(words), 2) for said in senders.map(lane.send, words[at : at + 2])]


def person_types(lane: Lane, words: Sequence[str]) -> list[bool]:
    """A person's text stands in the composer, and is taken back when the sender waits or has gone."""

    def leave() -> None:
        lane.press(*["C-u"] * 12)

    return [_disturbed(lane, text, lambda: lane.type(PERSON), leave) for text in words]


def person_begins_to_type(lane: Lane, words: Sequence[str]) -> list[bool]:
    """A person types just when the words come, now sooner, now later, and takes it back as above."""
    said = []
    for number, text in enumerate(words):
        typing = Timer(TYPED_WITHIN * number / len(words), lane.type, (PERSON,))
        said.append(_disturbed(lane, text, typing.start, lambda: lane.press(*["C-u"] * 12)))
        typing.join()
        lane.press(*["C-u"] * 12)
    return said


def dialog_is_open(lane: Lane, words: Sequence[str]) -> list[bool]:
    """A dialog waits for a person, who says no when the sender waits or has gone."""

    def ask() -> None:
        before = len(lane.cli.records("dialog"))
        lane.type(ASIDE)
        lane.press("Enter")
        await_true(lambda: len(lane.cli.records("dialog")) > before, READY_SECONDS, "a dialog is open")

    return [_disturbed(lane, text, ask, lambda: lane.press("Escape")) for text in words]


def _disturbed(lane: Lane, text: str, begin: Callable[[], None], end: Callable[[], None]) -> bool:
    begin()
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(lane.send, text)
        await_true(lambda: sending.done() or lane.held(), READY_SECONDS, "the sender waits or has gone")
        end()
        return sending.result()


def left_for_a_shell(lane: Lane, words: Sequence[str]) -> list[bool]:
    """The program has left a shell in the pane."""
    said = []
    for text in words:
        before = lane.cli.records("exit")
        lane.type(ASIDE)
        lane.press("Enter")
        await_true(lambda before=before: len(lane.cli.records("exit")) > len(before), READY_SECONDS, "it has left")  # type: ignore[misc]
        said.append(lane.send(text))
        lane.clear_up()
    return said


def neighbour_only(lane: Lane, words: Sequence[str]) -> list[bool]:
    """The terminal is gone, and there is another one whose name begins alike."""
    said = []
    for text in words:
        lane.tmux("kill-session")
        said.append(lane.send(text))
        lane.clear_up()
    return said


def modal_after_paste(lane: Lane, words: Sequence[str]) -> list[bool]:
    """A dialog opens when the text has come, and a person closes it when the sender waits or has gone."""
    return [_disturbed(lane, text, lambda: None, lambda: lane.press("Escape")) for text in words]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong."""

    name: str
    scenario: Scenario = field(default_factory=Scenario)
    trial: Trial = one_by_one
    prompts: tuple[str, ...] = ("do it\nand say so",)
    at_least: int = 1
    of_pastes: bool = False
    """It does not strike the old script, which types."""
    undecidable: tuple[str, ...] = ()
    """The kinds for which Torch cannot know what became of the prompt."""


def _ghost(**faults: Any) -> Scenario:
    """In an empty composer Enter submits what was only suggested."""
    looks, ways = Looks(ghost="delete everything"), Ways(enter_takes_ghost=True)
    return Scenario(looks=looks, ways=ways, faults=Faults(**faults))


AWKWARD = ("-n --help", "Enter", "say it;", "! rm -rf it", "/help me", "ends in \\", 'it\'s "$HOME" `id` \t🚒')
SHELL = Scenario(turns=(Turn((Shell(),), match=ASIDE),))
ASKS = Scenario(turns=(Turn((Permission(), Say()), match=ASIDE),))
FAULTS = (
    Fault("none"),
    Fault("awkward words, a suggestion in the composer", _ghost(), prompts=AWKWARD),
    Fault("two Enters are swallowed", Scenario(faults=Faults(swallow_enters=2))),
    Fault("one Enter is swallowed, a suggestion waits", _ghost(swallow_enters=1)),
    Fault("deaf for 0.7 s after a paste", Scenario(faults=Faults(deaf_after_paste=0.7)), of_pastes=True),
    Fault("accepts 2.5 s late, a suggestion waits", _ghost(accept_after=2.5)),
    Fault("draws 0.7 s late", Scenario(faults=Faults(draw_after=0.7))),
    Fault("drops a paste", Scenario(faults=Faults(drop_pastes=1)), of_pastes=True),
    Fault("cuts a paste", Scenario(faults=Faults(cut_pastes=1, cut_at=40)), of_pastes=True),
    Fault("collapses pastes", Scenario(ways=Ways(collapse_lines=0, collapse_chars=10))),
    Fault("storms of redraws", Scenario(default=Turn((Storm(1.0), Say())))),
    Fault(
        "a dialog opens after a paste",
        Scenario(faults=Faults(dialog_after_paste="update")),
        modal_after_paste,
        of_pastes=True,
    ),
    Fault("a dialog is open", ASKS, dialog_is_open),
    Fault("a person's text in the composer", trial=person_types),
    Fault("a person begins to type", trial=person_begins_to_type, at_least=4),
    Fault("two senders", Scenario(default=Turn((Work(0.5), Say()))), two_senders, at_least=2),
    Fault("the program left for a shell", SHELL, left_for_a_shell, prompts=("touch {new}",)),
    Fault("the terminal is gone, a neighbour's name begins alike", trial=neighbour_only),
    Fault("the program loses a prompt", Scenario(faults=Faults(lose_prompts=1)), undecidable=(SILENT,)),
)


# ── the counts ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Count:
    """What became of the prompts under one fault."""

    sent: int = 0
    lost: int = 0
    """The model never got exactly these words."""
    doubled: int = 0
    elsewhere: int = 0
    """A shell ran it, a dialog took it for an answer, or another program got it."""
    foreign: int = 0
    """Enter was pressed on another person's text, or on a suggestion."""
    unsure: int = 0
    """Torch could not know, and said so."""
    silent: int = 0
    """Lost, and reported as done."""
    denied: int = 0
    """Arrived, and reported as failed."""
    broken: str = ""
    """Why nothing was counted, if so."""

    @property
    def bad(self) -> int:
        """All of what must not happen."""
        return self.lost + self.doubled + self.elsewhere + self.foreign

    @property
    def wrong(self) -> int:
        """How often the sender said what was not so."""
        return self.silent + self.denied

    def __add__(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __str__(self) -> str:
        if self.broken:
            return self.broken
        names = {"unsure": "not known, and said so", "silent": "reported as done", "denied": "reported as failed"}
        counts = {what: number for what, number in vars(self).items() if number and what != "sent"}
        return ", ".join(f"{number} {names.get(what, what)}" for what, number in counts.items())


def measure(stage: Stage, quick: bool) -> list[Measure]:
    """All faults, for programs with hooks and without, and for the old script."""
    times = 1 if quick else 3
    with ExitStack() as stack:
        agents = [stack.enter_context(fake_agents(stage, [f"struck-{kind}"], kind))[0] for kind in (TELLING, SILENT)]
        old = stack.enter_context(OldScript(stage.folder / "struck"))
        neighbour = stack.enter_context(OldScript(stage.folder / "struck", "prod-api"))
        lanes = [*(TorchLane(stage, agent) for agent in agents), ScriptLane(old)]
        kinds = (TELLING, SILENT, "")
        with ThreadPoolExecutor(len(lanes)) as side_by_side:
            jobs = [
                side_by_side.submit(counts, stage.folder, lane, kind, neighbour.cli, times)
                for lane, kind in zip(lanes, kinds, strict=True)
            ]
            telling, silent, script = (job.result() for job in jobs)
    return [*_rows(telling, silent, script)]


def _rows(telling: list[Count], silent: list[Count], script: list[Count]) -> Iterator[Measure]:
    for fault, hooks, screen, old in zip(FAULTS, telling, silent, script, strict=True):
        ours = hooks + screen
        parts = [f"{what}: {made}" for what, made in (("hooks", hooks), ("no hooks", screen)) if str(made)]
        value = None if ours.broken else ours.bad
        yield Measure(f"{fault.name}: Torch", value, f"in {ours.sent} sent", goal=0, note="; ".join(parts))
        note = "it types, and is not struck" if fault.of_pastes else str(old)
        yield Measure(f"{fault.name}: the old script", old.bad, f"in {old.sent} sent", note=note)


def counts(
    folder: Path, lane: Lane, kind: str, neighbour: FakeCli, times: int, faults: Sequence[Fault] = FAULTS
) -> list[Count]:
    """What became of the prompts under each fault; files that prompts name are made in the folder."""
    return [_counted(folder, lane, kind, neighbour, fault, times) for fault in faults]


def _counted(folder: Path, lane: Lane, kind: str, neighbour: FakeCli, fault: Fault, times: int) -> Count:
    try:
        return _struck(folder, lane, kind, neighbour, fault, times)
    except (TimeoutError, TorchError) as error:
        lane.clear_up()
        return Count(broken=f"broken off: {error}")


def _struck(folder: Path, lane: Lane, kind: str, neighbour: FakeCli, fault: Fault, times: int) -> Count:
    names = (folder / f"ran-{kind}-{number}" for number in count())
    prompts = [text.replace("{new}", str(next(names))) for text in fault.prompts * max(times, fault.at_least)]
    before, chosen, strange = len(lane.received()), len(lane.cli.records("chosen")), len(neighbour.submitted())
    lane.cli.play(fault.scenario)
    said = fault.trial(lane, prompts)
    lane.cli.play(Scenario())
    lane.clear_up()
    received = lane.received(before)
    made = _judge(lane, prompts, said, [record["text"] for record in received], kind in fault.undecidable)
    made.foreign = sum(PERSON in record["text"] or record["how"] == "ghost" for record in received)
    made.elsewhere = sum(record["number"] > 0 for record in lane.cli.records("chosen")[chosen:])
    made.elsewhere += sum(Path(text.removeprefix("touch ")).is_file() for text in prompts)
    made.elsewhere += 0 if kind else len(neighbour.submitted()) - strange
    return made


def _judge(lane: Lane, prompts: list[str], said: list[bool], received: list[str], undecidable: bool) -> Count:
    made = Count(sent=len(prompts))
    exact = Counter(words for text in received for words in set(prompts) if lane.exact(text, words))
    # Of equal prompts, those that arrived are the ones that were reported as done.
    for words, success in sorted(zip(prompts, said, strict=True), key=lambda sent: not sent[1]):
        if exact[words]:
            exact[words] -= 1
            made.denied += not success
        elif undecidable and not success:
            made.unsure += 1
        else:
            made.lost += 1
            made.silent += success
    made.doubled = exact.total()
    return made
