"""What the benchmark beside others makes of what it counted, and the page that shows one of its runs."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY / "docs" / "benchmark.json"

sys.path.insert(0, str(REPOSITORY))

from benchmarks.faults import FAULTS, Count  # noqa: E402
from benchmarks.field import peers, verdicts  # noqa: E402
from benchmarks.field.__main__ import PARTS, part_of  # noqa: E402
from benchmarks.field.findings import CAO, TORCH, FieldFinding, FieldPart, FieldRun, grid, loads  # noqa: E402
from benchmarks.field.kills import EffectMark, Kill, begun_again, spread  # noqa: E402


def test_a_share_is_shown_with_what_was_counted() -> None:
    found = FieldFinding.share("kills", "lost", TORCH, 3, 120, per=10_000)
    assert found.value == 250
    assert found.cell == "250 (3 at 120)"


def test_a_table_has_a_row_for_each_measure_and_a_column_for_each_system() -> None:
    found = [
        FieldFinding("t", "lost", TORCH, 0, "tasks"),
        FieldFinding("t", "lost", CAO, None, "tasks", "not installed"),
        FieldFinding("t", "rate", TORCH, 0.1234, "per s"),
    ]
    assert grid(found) == (
        "| | Torch | CAO |\n| --- | ---: | ---: |\n| lost, tasks | 0 | not installed |\n| rate, per s | 0.123 | |\n"
    )


def test_a_part_that_ends_early_keeps_what_it_found_and_names_no_folder() -> None:
    def breaks() -> Iterator[FieldFinding]:
        yield FieldFinding("t", "lost", TORCH, 0, "tasks")
        raise FileNotFoundError("/a/folder/of/this/machine")

    part = part_of("breaks", breaks)
    assert [one.measure for one in part.findings] == ["lost"]
    assert part.failure == "FileNotFoundError"
    assert "| breaks | 0 |" in loads([part])


def test_a_run_is_read_back_as_it_was_written() -> None:
    run = FieldRun(
        "now", True, {"tmux": "3"}, {}, [FieldPart("a", "now", 1, 2, 3, [FieldFinding("t", "m", "s", 1, "")])]
    )
    assert FieldRun.of(json.loads(json.dumps(run.as_json()))) == run


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_verdict_is_wrong_if_it_says_yes_and_was_not_so_or_no_and_was() -> None:
    assert Count(sent=4, lost=3, silent=2, denied=1).wrong == 3
    assert Count(sent=4, lost=1, unsure=1).wrong == 0


def test_both_programs_of_a_sender_count_together_and_a_fault_that_broke_off_does_not() -> None:
    good, bad = Count(sent=2), Count(sent=2, lost=1, silent=1)
    counted = [(TORCH, [good, bad]), (TORCH, [good, Count(broken="broken off: late")]), ("other", [bad, bad])]
    found = [*verdicts.findings(FAULTS[:2], counted)]
    cells = {(one.measure, one.system): one.cell for one in found if one.table == "wrong verdicts"}
    first, second = (fault.name for fault in FAULTS[:2])
    assert cells[first, TORCH] == "0 (0 at 4)"
    assert cells[second, TORCH] == "broken off"
    assert cells["all faults", TORCH] == "167 (1 at 6)"
    assert cells["all faults", "other"] == "500 (2 at 4)"


def test_a_tool_that_is_not_there_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BENCH_CAO", raising=False)
    assert peers.installed() == {}
    assert peers.versions() == {"CAO": "not installed", "agent-deck": "not installed"}


def test_a_folder_without_the_tool_that_it_is_named_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCH_CAO", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="there is no bin/cao in"):
        peers.installed()


# ── kills ────────────────────────────────────────────────────────────────────────────────────────────────────────


def marks(*told: tuple[str, float, str]) -> list[EffectMark]:
    """What a task wrote."""
    return [EffectMark(*one) for one in told]


@pytest.mark.parametrize(
    ("written", "when"),
    [
        ([("start", 9, "a"), ("start", 15, "b"), ("end", 16, "b")], 15),
        ([("start", 9, "b"), ("start", 15, "a")], None),
        ([("start", 8, "a"), ("end", 9, "a"), ("start", 15, "b")], None),
        ([("start", 9, "a"), ("end", 11, "a")], None),
        ([("start", 3, "a"), ("start", 15, "b")], None),
        ([], None),
    ],
    ids=["cut off", "another's", "done before", "its shell lives on", "cut off before", "not begun"],
)
def test_a_task_recovers_when_it_is_begun_again(written: list[tuple[str, float, str]], when: float | None) -> None:
    assert begun_again(marks(*written), Kill("a", 10, whole=False), since=5) == when


def test_percentiles_are_said_of_how_many_values_they_are() -> None:
    assert [one.cell for one in spread("m", TORCH, [1.0])] == ["1 (of 1)", "1", "1"]
    assert [one.measure for one in spread("m", TORCH, [1.0, 2.0])] == ["m, p50", "m, p95", "m, p99"]
    assert [*spread("m", TORCH, [])] == []


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_says_what_its_data_says() -> None:
    page = runpy.run_path(str(REPOSITORY / "docs" / "generate_benchmark.py"))["page"]()
    assert (REPOSITORY / "docs" / "benchmark.md").read_text() == page, "run python docs/generate_benchmark.py"
    run = FieldRun.of(json.loads(DATA.read_text()))
    assert {part.name for part in run.parts} == set(PARTS)
    assert all(one.cell in page for part in run.parts for one in part.findings)


def test_the_data_is_small_and_names_nothing_of_the_machine() -> None:
    text = DATA.read_text()
    assert len(text) < 100_000
    assert re.findall(r"(?:/[\w.-]+){2,}|localhost|127\.0\.0\.1", text.replace("N/A", "")) == []
