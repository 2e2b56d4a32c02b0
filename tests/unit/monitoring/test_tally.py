"""What processes count: kept over their lives, read as a sum, shown as Prometheus reads it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from torch_tasks.model import metrics
from torch_tasks.model.metrics import METRICS, MetricType
from torch_tasks.monitoring.exposition import Measure, Readings, samples
from torch_tasks.state_folder import StateFolder
from torch_tasks.system.tally import NODE, Series, Tallies, Tally, files_of, keep_tally_of, read_tally, tally

REPOSITORY = Path(__file__).parents[3]


def kept(file: Path) -> Tally:
    """A process that counts in this file."""
    made = Tally()
    made.keep_in(file)
    return made


def taken(series: Series, role: str = "qa") -> float:
    return series[metrics.TASKS_TAKEN.name, (role, "shell")][0]


def test_the_next_process_counts_on(tmp_path: Path) -> None:
    file = tmp_path / "tally.json"
    kept(file).count(metrics.TASKS_TAKEN, role="qa", kind="shell")
    kept(file).count(metrics.TASKS_TAKEN, 2, role="qa", kind="shell")
    assert taken(read_tally(file)) == 3


def test_two_that_count_in_turns_lose_nothing_of_each_other(tmp_path: Path) -> None:
    one, other = kept(tmp_path / "beat.json"), kept(tmp_path / "beat.json")
    for turn in (one, other, one, other, one):
        turn.count(metrics.CHECKINS_FIRED)
    assert read_tally(tmp_path / "beat.json")[metrics.CHECKINS_FIRED.name, ()] == [5]


def test_a_process_with_nothing_to_count_writes_nothing(tmp_path: Path) -> None:
    kept(tmp_path / "tally.json")
    assert list(tmp_path.iterdir()) == []


def test_what_is_counted_at_once_is_written_at_once(tmp_path: Path) -> None:
    counting, file = kept(tmp_path / "tally.json"), tmp_path / "tally.json"
    with counting.at_once():
        for _ in range(3):
            counting.count(metrics.TASKS_TAKEN, role="qa", kind="shell")
        assert not file.exists()
    assert taken(read_tally(file)) == 3


def test_what_was_counted_elsewhere_is_not_counted_twice(tmp_path: Path) -> None:
    counting = kept(tmp_path / "one.json")
    counting.count(metrics.CHECKINS_FIRED)
    counting.keep_in(tmp_path / "other.json")
    counting.count(metrics.CHECKINS_FIRED)
    assert read_tally(tmp_path / "other.json") == {(metrics.CHECKINS_FIRED.name, ()): [1]}


def test_what_is_begun_is_shown_as_nothing_yet(tmp_path: Path) -> None:
    beginning = kept(tmp_path / "tally.json")
    for metric in (metrics.CHECKINS_FIRED, metrics.CHECKIN_LATE_SECONDS):
        beginning.begin(metric)
    shown = samples(Readings(lambda: read_tally(tmp_path / "tally.json"), list))
    assert set(shown.values()) == {0}
    assert ("torch_checkin_late_seconds_count", frozenset()) in shown


def test_a_count_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    counting = kept(tmp_path / "gone" / "tally.json")
    counting.count(metrics.CHECKINS_FIRED)
    (tmp_path / "gone").mkdir()
    counting.count(metrics.CHECKINS_FIRED)
    assert read_tally(tmp_path / "gone" / "tally.json")[metrics.CHECKINS_FIRED.name, ()] == [2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"a": 1}',
        json.dumps([["torch_of_another_version", [], [1]]]),
        json.dumps([[metrics.TASKS_TAKEN.name, ["one label"], [1]]]),
        json.dumps([[metrics.CHECKINS_FIRED.name, [], [1, 2]]]),
        json.dumps([[metrics.CHECKINS_FIRED.name, [], ["many"]]]),
    ],
)
def test_what_is_no_tally_counts_for_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tally.json"
    file.write_text(text)
    assert read_tally(file) == {}
    kept(file).count(metrics.CHECKINS_FIRED)
    assert read_tally(file) == {(metrics.CHECKINS_FIRED.name, ()): [1]}


def test_the_sum_is_over_all_agents_of_a_machine(tmp_path: Path) -> None:
    state, tallies = StateFolder(tmp_path), Tallies()
    for agent in ("qa-1", "qa-2"):
        state.agent(agent).mkdir(parents=True)
        kept(state.agent(agent) / "tally.json").count(metrics.TASKS_TAKEN, role="qa", kind="shell")
    assert taken(tallies.sum(files_of(state))) == 2
    kept(state.agent("qa-1") / "tally.json").count(metrics.TASKS_TAKEN, role="qa", kind="shell")
    assert taken(tallies.sum(files_of(state))) == 3


def test_a_lasting_process_counts_where_the_node_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Tally()
    monkeypatch.setattr("torch_tasks.system.tally._own", own)
    keep_tally_of(NODE, StateFolder(tmp_path))
    tally().count(metrics.RECONCILIATIONS)
    assert Tallies().sum(files_of(StateFolder(tmp_path))) == {(metrics.RECONCILIATIONS.name, ()): [1]}


def test_prometheus_reads_counts_measures_and_histograms() -> None:
    own = Tally()
    own.count(metrics.TASKS_ENDED, role="qa", kind="shell", end="succeeded")
    for seconds in (0.003, 0.3, 100, -1):
        own.observe(metrics.MESSAGE_SECONDS, seconds, role="qa")
    read = Readings(own.series, lambda: [Measure(metrics.DEAD_LETTERS, 2)])
    shown = samples(read)
    role = ("role", "qa")
    assert shown["torch_tasks_ended_total", frozenset({role, ("kind", "shell"), ("end", "succeeded")})] == 1
    assert shown["torch_dead_letters", frozenset()] == 2
    bucket = "torch_message_delivery_seconds_bucket"
    assert shown[bucket, frozenset({role, ("le", "0.005")})] == 2
    assert shown[bucket, frozenset({role, ("le", "0.5")})] == 3
    assert shown[bucket, frozenset({role, ("le", "+Inf")})] == 4
    assert shown["torch_message_delivery_seconds_sum", frozenset({role})] == pytest.approx(100.303)
    assert b'torch_tasks_ended_total{end="succeeded",kind="shell",role="qa"} 1.0\n' in read.text()


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_wants_and_never_by_task(metric: metrics.Metric) -> None:
    assert metric.name.startswith("torch_")
    assert not metric.name.endswith("_total")
    assert metric.meaning.endswith(".")
    assert set(metric.labels) <= {
        *("role", "kind", "end", "failure", "state", "what", "outcome", "account", "direction", "status", "budget"),
        *("node", "version", "agent", "certificate", "model"),
    }
    assert bool(metric.bounds) is (metric.type is MetricType.HISTOGRAM)
    assert list(metric.bounds) == sorted(metric.bounds)


def test_the_page_has_every_metric() -> None:
    page = runpy.run_path(str(REPOSITORY / "docs" / "generate_metrics.py"))["page"]()
    assert (REPOSITORY / "docs" / "metrics.md").read_text() == page, "run python docs/generate_metrics.py"
    assert all(f"`{metric.shown_name}`" in page for metric in METRICS.values())
