"""What is wrong in the configuration is named by file, line and key, with the names that may have been meant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from torch_tasks.communication.policy import policy
from torch_tasks.settings import settings, settings_for_ending, unknown_variables
from torch_tasks.toml_config import line_of
from torch_tasks.workers.configuration import configuration_faults
from torch_tasks.workers.git.policy import git_policy
from torch_tasks.workers.programs.config import kind_config

Faults = Callable[..., list[str]]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Faults]:
    """Finds what is wrong with these files in the folder of the configuration."""
    for name in list(os.environ):
        if name.startswith("TORCH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TORCH_CONFIG_DIR", str(tmp_path))
    caches = (settings, policy, git_policy, kind_config)

    def find(**files: str) -> list[str]:
        for name, text in files.items():
            file = tmp_path / name.replace("__", "/").replace("_", ".")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        for cached in caches:
            cached.cache_clear()
        return [fault.replace(f"{tmp_path}/", "") for fault in configuration_faults()]

    yield find
    for cached in caches:
        cached.cache_clear()


def test_the_configuration_that_torch_ships_has_no_fault(faults: Faults) -> None:
    assert faults() == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "torch_toml",
            "# mine\nresult_dais = 3\n",
            "line 2: result_dais: is not a field that exists; did you mean result_days?",
        ),
        ("torch_toml", "ledger = true\nmax_retries = -1\n", "torch.toml, line 2: max_retries: Input should be"),
        (
            "torch_toml",
            '[[agents]]\nid = "a-1"\nrole = "x"\n[[agents]]\nid = "b-1"\nrol = "y"\n',
            "line 6: agents.1.rol: is",
        ),
        ("torch_toml", '[[agents]]\nid = "a-1"\n', "torch.toml, line 1: agents.0.role: is missing"),
        ("torch_toml", "max_retries = \n", "cannot read torch.toml: Invalid value (at line 1"),
        (
            "policy_toml",
            "\n[hub]\nmanagr = 'x'\n",
            "line 3: hub.managr: is not a field that exists; did you mean manager",
        ),
        ("policy_toml", "exchanges = 'x'\n", "policy.toml, line 1: exchanges: Input should be"),
        (
            "git_toml",
            "[roles.developer]\nenabled = true\ncomit_minutes = 3\n",
            "git.toml, line 3: roles.developer.comit_minutes: ",
        ),
        ("git_toml", "[all]\nsecret_texts = ['(']\n", "line 2: all.secret_texts.0: '(' is no regular expression"),
        (
            "agents__mine_toml",
            "base = 'claude'\n[submit]\nsetle_seconds = 1\n",
            "agents/mine.toml, line 3: submit.setle_seconds: ",
        ),
        ("agents__mine_toml", "comand = ['x']\n", "did you mean command"),
        ("polcy_toml", "", "polcy.toml is not read; did you mean policy.toml"),
        ("roles__QA lead_md", "hello", "'QA lead' can be the name of no role"),
    ],
)
def test_a_fault_is_named_by_file_line_and_key(faults: Faults, file: str, text: str, said: str) -> None:
    assert said in "\n".join(faults(**{file: text}))


def test_a_fault_of_a_kind_that_is_laid_over_another_is_named_where_it_stands(faults: Faults) -> None:
    own = "base = 'shell'\n[[rules]]\nname = 'one'\nstate = 'error'\npattern = 'x'\n"
    under = "command = ['x']\n\n[[rules]]\nname = 'two'\nstate = 'eror'\npattern = 'y'\n"
    found = "\n".join(faults(agents__top_toml=own.replace("shell", "under"), agents__under_toml=under))
    assert found.count("agents/under.toml, line 5: rules.0.state: ") == 2
    assert "agents/top.toml, line" not in found


def test_all_faults_are_told_at_once(faults: Faults) -> None:
    found = faults(torch_toml="max_retries = -1\nleger = true\n", policy_toml="x = 1\n", git_toml="=")
    assert [fault.count("line") for fault in found] == [2, 1, 1]


def test_a_variable_that_is_nearly_a_setting_is_named_and_one_of_another_program_is_not(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HEARTBEET_SECONDS", "1")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")
    monkeypatch.setenv("TORCH_HOME", "/models")
    monkeypatch.setenv("TORCH_TASK_ID", "t-1")
    [said] = faults()
    assert said.startswith(
        "TORCH_HEARTBEET_SECONDS in the environment is no setting of Torch; did you mean TORCH_HEARTBEAT_SECONDS"
    )
    assert list(unknown_variables()) == ["TORCH_CUDA_ARCH_LIST", "TORCH_HEARTBEET_SECONDS", "TORCH_HOME"]


def test_a_line_is_found_in_any_form_of_toml() -> None:
    text = """
# [no.table]
plain = 1
long = '''
inside = 2
'''
a.b = 3
[one.two]
"quoted key" = 4
list = [
  { x = 1 },
]
[[many]]
[[many]]
[many.below]
z = 5
"""
    found = {
        ("plain",): 3,
        ("inside",): None,
        ("a", "b"): 7,
        ("one", "two", "quoted key"): 9,
        ("one", "two", "list", 0, "x"): 10,
        ("many", 0): 13,
        ("many", 1, "missing"): 14,
        ("many", 1, "below", "z"): 16,
        ("nowhere",): None,
    }
    assert {loc: line_of(text, loc) for loc in found} == found


@pytest.mark.parametrize("broken", ["= x", "lease_seconds = 'long'", "lease_secs = 1"])
def test_broken_settings_still_name_the_state_folder(
    faults: Faults, broken: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert faults(torch_toml=f"state_dir = '/srv/torch'\n{broken}\n")
    assert settings_for_ending().state.run == Path("/srv/torch/run")
    monkeypatch.setenv("TORCH_STATE_DIR", str(tmp_path))
    assert settings_for_ending().state_dir == tmp_path
