"""What Prometheus saw of a broken fleet, as tests for promtool: each alert is quiet, fires, and ends as it did."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, pairwise
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, Self

import click
import yaml
from prometheus import MONITORING, Prometheus, program, prometheus

EVENTS = "events.json"
STEP = 30
BEFORE, AFTER = 60, 120
"""How much is shown of the time before a fault, and after its alert."""
LONGEST = 30 * 60.0
HEAD = """\
# What fires each alert, and when it ends: the series are what Prometheus saw while a real fleet was really broken,
# every 30 s, with four digits. Recorded and written by tests/chaos/alerts.py; the rest is in alerts_quiet_test.yml.
#   promtool test rules compose/monitoring/alerts_test.yml
"""


class Event(NamedTuple):
    """A fault, and the alerts that it fires. In minutes from the beginning, later in seconds since 1970."""

    alerts: tuple[str, ...]
    fault: str
    begun: float
    over: float

    def at(self, moment: float) -> Self:
        return self._replace(begun=moment + self.begun * 60, over=moment + self.over * 60)


class Window(NamedTuple):
    """The time of a test, and in it, from the beginning, when its alert is quiet, fires, and has ended."""

    begun: float
    ended: float
    quiet: int
    fires: int
    over: int | None

    @classmethod
    def of(cls, event: Event, firing: list[float]) -> Self:
        """``firing`` are the moments at which the alert was seen to fire."""
        begun = event.begun - BEFORE
        gaps = ((at, again) for at, again in pairwise(firing) if again - at > STEP)
        last, again = next(gaps, (firing[-1], inf))
        fires = min(_grid(firing[0] - begun) + STEP, _grid(last - begun, up=False))
        if event.over - event.begun > LONGEST:  # nobody mended it
            return cls(begun, begun + fires + STEP, STEP, fires, None)
        over = _grid(min(last + AFTER, again - 1) - begun, up=False)
        return cls(begun, begun + over + STEP, STEP, fires, over)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def write(folder: Path) -> None:
    """Make the tests of what Prometheus has kept in the folder."""
    events = [Event(**fields) for fields in json.loads((folder / EVENTS).read_text())]
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    expressions = {rule["alert"]: rule["expr"] for group in rules for rule in group["rules"]}
    with prometheus(folder, "groups: []", {}, "1h") as seen:
        tests = [
            test_of(seen, alert, expressions[alert], event)
            for event in events
            for alert in event.alerts
            if firing_of(seen, alert, event) or click.echo(f"{alert} did not fire")
        ]
    file = MONITORING / "alerts_test.yml"
    save(file, tests)
    expect(tests, promtool(file))
    save(file, tests)
    click.echo(promtool(file))


def firing_of(seen: Prometheus, alert: str, event: Event) -> list[float]:
    """The moments at which it was seen to fire."""
    found = seen.over(f'ALERTS{{alertname="{alert}",alertstate="firing"}}', event.begun, event.begun + LONGEST, 5)
    return sorted({at for series in found for at, _ in series["values"]})


def test_of(seen: Prometheus, alert: str, expression: str, event: Event) -> dict[str, Any]:
    """The test of one alert; what it expects is filled in later."""
    window = Window.of(event, firing_of(seen, alert, event))
    moments = [window.quiet, window.fires, *([window.over] if window.over else [])]
    return {
        "name": f"{alert}: {event.fault}",
        "interval": f"{STEP}s",
        "input_series": list(series_of(seen, expression, window)),
        "alert_rule_test": [{"eval_time": f"{moment}s", "alertname": alert} for moment in moments],
    }


def series_of(seen: Prometheus, expression: str, window: Window) -> Iterator[dict[str, str]]:
    """All that the expression reads, as it was in this time."""
    since = window.begun if "time()" in expression else 0.0
    for selector in sorted(set(re.findall(r"\b(?:torch_\w+|up)\b(?:\{[^}]*\})?", expression))):
        for series in seen.over(selector, window.begun, window.ended, STEP):
            labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
            shown = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
            known = {round((at - window.begun) / STEP): float(value) - since for at, value in series["values"]}
            steps = int((window.ended - window.begun) / STEP) + 1
            yield {
                "series": f"{series['metric']['__name__']}{{{shown}}}",
                "values": compact(known.get(step) for step in range(steps)),
            }


def compact(values: Iterable[float | None]) -> str:
    """As promtool reads them; what is no longer there is stale at once, as it is for Prometheus."""
    words, before = [], None
    for value, same in groupby(None if value is None else four_digits(value) for value in values):
        count = len(list(same))
        if value is not None:
            words.append(f"{value}x{count - 1}" if count > 1 else value)
        elif before is None:
            words.append(f"_x{count}")
        else:
            words += ["stale", *([f"_x{count - 1}"] if count > 1 else [])]
        before = value
    return " ".join(words)


def four_digits(value: float) -> str:
    whole = round(value)
    if abs(whole) >= 1000:
        return str(round(whole, 4 - len(str(abs(whole)))))
    return f"{value:.4g}"


def _grid(seconds: float, *, up: bool = True) -> int:
    whole = int(seconds // STEP) * STEP
    return whole + STEP if up and whole < seconds else whole


# ── what is expected ─────────────────────────────────────────────────────────────────────────────────────────────────


def promtool(file: Path) -> str:
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def expect(tests: list[dict[str, Any]], said: str) -> None:
    """Fill in what an alert says while it fires; it must fire then, and only then."""
    found = re.findall(r"alertname: (\w+), time: (\S+?),?\s+exp:.*?got:\[(.*?)\n\s+\]", said, re.DOTALL)
    got = {(alert, _seconds(at)): list(_alerts(text)) for alert, at, text in found}
    for test in tests:
        for case, fires in zip(test["alert_rule_test"], (False, True, False), strict=False):
            alerts = got.get((case["alertname"], int(case["eval_time"][:-1])), [])
            if bool(alerts) is not fires:
                click.echo(f"{test['name']} at {case['eval_time']}: {'fires not' if fires else 'fires'}")
            if alerts:
                case["exp_alerts"] = alerts


def _alerts(text: str) -> Iterator[dict[str, Any]]:
    for labels, words in re.findall(r"Labels:(\{.*?\})\s*\n\s*Annotations:(\{.*?\}),?\s*(?:\n|$)", text):
        found = _pairs(labels)
        del found["alertname"]
        yield {"exp_labels": found, "exp_annotations": _pairs(words)}


def _pairs(text: str) -> dict[str, str]:
    return {name: json.loads(value) for name, value in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*")', text)}


def _seconds(duration: str) -> int:
    parts: Mapping[str, int] = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * parts[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def save(file: Path, tests: list[dict[str, Any]]) -> None:
    whole = {"rule_files": ["alerts.yml"], "evaluation_interval": f"{STEP}s", "tests": tests}
    file.write_text(HEAD + yaml.safe_dump(whole, sort_keys=False, width=10_000, allow_unicode=True))
