"""What Python makes of a Lua file: scripts with names for their keys and arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch_tasks.broker.scripts import Scripts

LUA = """\
-- Things. WITH: clock
-- FROM PYTHON: LIMIT, ENDS

local function later(ms)
  return now + ms
end

local function helper(one)  -- ENDS is not used
  return later(LIMIT) .. one
end

-- Change a thing.
-- KEYS: thing, *others
-- ARGV: id, *fields, *tags,
--   note
local function change()
  return helper(ARG.id)
end

-- Look at a thing.
-- KEYS: thing
local function look()
  return redis.call('GET', KEY.thing)
end
"""
CONSTANTS = {"LIMIT": 10, "ENDS": {"new": frozenset({"b", "a"})}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The Python file beside which the Lua lies."""
    (tmp_path / "things.lua").write_text(LUA)
    return tmp_path / "things.py"


def test_a_script_is_a_function_whose_comment_declares_its_keys(file: Path) -> None:
    scripts = Scripts(file, **CONSTANTS)
    assert list(scripts) == ["change", "look"]
    assert scripts["look"].script.endswith("\nreturn look()\n")


def test_a_script_holds_what_it_uses_and_nothing_else(file: Path) -> None:
    scripts = Scripts(file, **CONSTANTS)
    change, look = scripts["change"].script, scripts["look"].script
    used = ("local LIMIT = 10\n", "redis.call('TIME')", "local now = ", "function later(", "function helper(")
    assert [part for part in used if part not in change] == []
    assert [part for part in used if part in look] == []
    assert "ENDS" not in change
    assert "function look(" not in change


def test_constants_become_lua(tmp_path: Path) -> None:
    (tmp_path / "things.lua").write_text(
        "-- FROM PYTHON: ENDS\n\n-- See.\n-- KEYS: thing\nlocal function see()\n  return ENDS\nend\n"
    )
    text = Scripts(tmp_path / "things.py", ENDS=CONSTANTS["ENDS"])["see"].script
    assert 'local ENDS = {["new"] = {["a"] = true, ["b"] = true}}\n' in text


def test_names_become_keys_and_arguments_in_the_declared_order(file: Path) -> None:
    words = Scripts(file, **CONSTANTS)["change"].words(
        note=None, thing="k1", others=["k2", "k3"], id=True, tags=["x"], fields={"a": 1, "b": 2}
    )
    assert words[1:] == (3, "k1", "k2", "k3", 2, 4, 1, 1, "a", 1, "b", 2, "x", "")


def test_lua_finds_each_list_by_the_lengths_that_come_first(file: Path) -> None:
    text = Scripts(file, **CONSTANTS)["change"].script
    assert "local KEY = {thing = KEYS[1], others = _slice(KEYS, 2, tonumber(ARGV[1]))}\n" in text
    assert (
        "local ARG = {id = ARGV[4], fields = _slice(ARGV, 5, tonumber(ARGV[2])), "
        "tags = _slice(ARGV, 5 + tonumber(ARGV[2]), tonumber(ARGV[3])), "
        "note = ARGV[5 + tonumber(ARGV[2]) + tonumber(ARGV[3])]}\n"
    ) in text


@pytest.mark.parametrize("values", [{}, {"thing": "k", "things": "k"}])
def test_a_wrong_name_is_refused(file: Path, values: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="look is called with missing or unknown names: thing"):
        Scripts(file, **CONSTANTS)["look"].words(**values)


def test_a_constant_that_nobody_asks_for_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="does not name the constants it gets"):
        list(Scripts(file, LIMIT=10))
