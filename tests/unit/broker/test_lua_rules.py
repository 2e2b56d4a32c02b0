"""What DragonflyDB asks of scripts holds in every Lua file of the tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from torch_tasks.broker.scripts import SHARED

ROOT = Path(__file__).parents[3]
FILES = [path for folder in ("torch_tasks", "workers", "beat") for path in sorted((ROOT / folder).rglob("*.lua"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
LOADER = ROOT / "torch_tasks/broker/scripts.py"
"""It shows a script in its docstring."""
OF_LUA = {"ipairs", "pairs", "pcall", "tonumber", "tostring", "type", "unpack"}
every_file = pytest.mark.parametrize("name", TEXTS)


def calls(script: str) -> Iterator[tuple[str, str]]:
    """Each command that a script runs, with its first argument."""
    for match in re.finditer(r"redis\.p?call\(\s*'(\w+)'\s*(?:,\s*([^,()]+))?", script):
        yield match[1].upper(), (match[2] or "").strip()


def functions(script: str) -> dict[str, tuple[str, str]]:
    """Each function of a file, with the comment above it and its body."""
    found = re.finditer(r"((?:^--[^\n]*\n)*)^local function (\w+)\(.*?\)(.*?)^end$", script, re.MULTILINE | re.DOTALL)
    return {match[2]: (match[1], match[3]) for match in found}


def declared(comment: str, what: str) -> set[str]:
    """The names that a script's comment declares."""
    words = " ".join(line.removeprefix("--").strip() for line in comment.splitlines())
    found = re.search(what + r": ((?:\*?\w+, )*\*?\w+)", words)
    return {name.removeprefix("*") for name in found[1].split(", ")} if found else set()


def available(name: str) -> dict[str, tuple[str, str]]:
    """The functions of a file and of the files that it includes."""
    found = functions(TEXTS[name])
    for head in re.findall(r"WITH: ((?:\w+, )*\w+)", TEXTS[name]):
        for included in head.split(", "):
            beside = (ROOT / name).with_name(f"{included}.lua")
            found |= functions((beside if beside.exists() else SHARED / f"{included}.lua").read_text())
    return found


def test_no_lua_stands_in_python() -> None:
    sources = [path for folder in ("torch_tasks", "workers", "beat") for path in (ROOT / folder).rglob("*.py")]
    assert {path for path in sources if re.search(r"redis\.p?call\(", path.read_text())} == {LOADER}


def test_the_files_are_found() -> None:
    assert {"torch_tasks/store/tasks.lua", "torch_tasks/transport/claiming.lua"} <= TEXTS.keys()


@every_file
def test_every_call_is_understood(name: str) -> None:
    text = re.sub(r"--.*", "", TEXTS[name])
    assert len(list(calls(text))) == text.count("redis.call") + text.count("redis.pcall")


@every_file
def test_every_key_that_a_script_touches_is_declared(name: str) -> None:
    for command, first in calls(TEXTS[name]):
        if command != "TIME":
            assert re.fullmatch(r"KEY\.\w+(\[\w+\])?|unpack|\w+_key", first), f"{command} {first}"
    assert re.findall(r"redis\.call\('\w+', unpack\((?!KEY\.)", TEXTS[name]) == []
    assert re.findall(r"local \w+_key = (?!KEY\.)", TEXTS[name]) == [], "such a name is a key or a parameter for one"


@every_file
def test_every_function_that_is_called_exists(name: str) -> None:
    code = re.sub(r"--.*|'[^']*'", "", TEXTS[name])
    called = set(re.findall(r"(?<![.\w])(\w+)\(", code))
    reader = functions(TEXTS["torch_tasks/broker/reader.lua"])  # also for what is included beside it
    assert called - available(name).keys() - reader.keys() - OF_LUA == set()


@every_file
def test_every_name_is_declared_by_each_script_that_comes_to_use_it(name: str) -> None:
    found = available(name)
    for function, (comment, _) in functions(TEXTS[name]).items():
        known = {"KEY": declared(comment, "KEYS"), "ARG": declared(comment, "ARGV")}
        if not known["KEY"]:
            continue
        reached, ahead = {function}, [function]
        while ahead:
            body = found[ahead.pop()][1]
            used = set(re.findall(r"\b(KEY|ARG)\.(\w+)", body))
            assert {one for one in used if one[1] not in known[one[0]]} == set(), function
            further = {other for other in found if re.search(rf"(?<![.\w]){other}\(", body)} - reached
            reached |= further
            ahead += further


@every_file
def test_scores_read_in_a_script_are_made_numbers_on_every_broker(name: str) -> None:
    text = TEXTS[name]
    assert text.count("'ZSCORE'") == len(re.findall(r"tonumber\(\s*redis\.call\('ZSCORE'", text))


@every_file
def test_no_script_has_a_name_twice(name: str) -> None:
    for function, (comment, _) in functions(TEXTS[name]).items():
        assert declared(comment, "KEYS") & declared(comment, "ARGV") == set(), function
