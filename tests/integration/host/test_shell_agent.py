"""What the shell agent does with a task: what is asserted is what the script in the pane read, did and printed."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from nodes import AgentWorker, Node
from waiting import until

from torch_tasks import TaskResult, TaskState, Torch
from torch_tasks.model.task import FailureKind

Do = Callable[..., TaskResult]

ODD_TEXT = "\n".join(
    [
        "it's \"quoted\" 'twice' '",
        "$HOME ${HOME} $(id) `id` $$ !! !$ !1",
        "\ttab\tinside\t",
        "- leading dash",
        "-n",
        "--",
        "ends with a backslash \\",
        "CRLF here\r",
        "lone \r return",
        "é 漢字 e\u0301 🚒 👩‍🚒",
        "  spaces around  ",
        "no\u00a0break # not a comment; | & < > ~ * ? [x] {a,b} %s %%",
        "\x1b[201~ the end of a paste, and of none",
        "\x03\x04\x11\x13\x1a",
        "",
        "x" * 5000,
    ]
)


@pytest.fixture(scope="module")
def agent(shared_node: Node) -> AgentWorker:
    """The agent of this module's tests."""
    return shared_node.agent_worker("developer-1", skills=["python"])


@pytest.fixture
def do(agent: AgentWorker, torch: Torch) -> Do:
    """Has the agent do something and returns how that ended."""

    def do(prompt: str, **options: Any) -> TaskResult:
        return torch.enqueue(prompt, **{"role": "developer", **options}).result(timeout=20)

    return do


@pytest.fixture
def do_apart(shared_node: Node, torch: Torch) -> Iterator[Do]:
    """As ``do``, by an agent that the test may spoil."""
    agent = shared_node.agent_worker(f"apart-{len(shared_node.workers)}", role="apart")

    def do(prompt: str, **options: Any) -> TaskResult:
        return torch.enqueue(prompt, agent=agent.agent_id, **options).result(timeout=20)

    yield do
    agent.teardown()
    agent.end_terminal()


def written(text: str, path: Path) -> str:
    """A script that writes the text, and a newline, to the file."""
    return f"cat > {shlex.quote(str(path))} <<'THE-END'\n{text}\nTHE-END\n"


def test_the_answer_is_what_the_script_printed_and_the_exit_code_is_the_evidence(do: Do) -> None:
    result = do("echo out; echo err >&2; printf 'no newline'")
    assert result.succeeded
    assert result.answer == "out\nerr\nno newline"
    assert result.answer_bytes == len(result.answer)
    assert result.exit_code == 0
    assert [(evidence.kind, evidence.passed) for evidence in result.evidence] == [("exit_code", True)]
    assert (result.agent, result.node, result.attempts) == ("developer-1", "node-a", 1)
    assert result.started_at <= result.finished_at


@pytest.mark.parametrize(
    "change",
    [
        "PS1='(venv) $ '; PS2=; PROMPT_COMMAND='echo mine'",
        "unset PS1 PROMPT_COMMAND TORCH_AGENT_ID TORCH_STATE_DIR",
        "printf() { echo not me; }; read() { echo nor me; }; alias ls='ls -la'",
        "set -o vi; shopt -s extdebug; set -x",
        "stty -echo raw; exec 2>/dev/null",
        "python3 -m venv --without-pip venv && . venv/bin/activate",
    ],
)
def test_whatever_a_task_makes_of_its_shell_the_next_one_runs(do_apart: Do, tmp_path: Path, change: str) -> None:
    assert do_apart(f"cd {tmp_path}\n{change}").exit_code == 0
    assert do_apart("echo next").answer == "next\n"


def test_folder_variables_arrays_and_functions_survive_from_task_to_task(do: Do, tmp_path: Path) -> None:
    do(
        f"cd {tmp_path}; plain='a b'; declare -a list=(one 'two three'); declare -A map=([k]=v)\n"
        "greet() { echo hi $1; }"
    )
    result = do('pwd; echo "$plain"; printf "<%s>" "${list[@]}"; echo "${map[k]}"; greet you')
    assert result.answer == f"{tmp_path}\na b\n<one><two three>v\nhi you\n"


@pytest.mark.parametrize(
    ("prompt", "exit_code"),
    [
        ("exit 3", 3),
        ("set -e; false; echo never", 1),
        ("set -u; echo $not_there; echo never", 1),
        ("return 4; echo never", 4),
        ("(exit 5)", 5),
        ("no-such-command", 127),
        ("echo 'not closed", 2),
        ("if then fi", 2),
        ("exec false", 1),
    ],
)
def test_however_a_script_fails_its_code_is_told_and_the_agent_goes_on(do: Do, prompt: str, exit_code: int) -> None:
    result = do(prompt)
    assert result.status is TaskState.FAILED
    assert result.error.kind is FailureKind.EXIT_CODE
    assert result.exit_code == exit_code
    assert "never" not in result.answer
    assert do("echo next").answer == "next\n"


@pytest.mark.parametrize("end", ["exit 9", "set -e; false", "exec false", "kill -TERM $$; kill -KILL $$"])
def test_what_a_script_printed_before_it_ended_its_shell_is_in_the_answer(do_apart: Do, end: str) -> None:
    size = 5 << 20
    for _ in range(10):
        result = do_apart(f"head -c {size} /dev/zero | tr '\\0' x; echo END; {end}", max_retries=0)
        assert not result.succeeded
        assert result.answer.endswith("xEND\n")
        assert result.answer_bytes == size + len("END\n")


def test_a_job_in_the_background_that_prints_does_not_keep_later_tasks_waiting(do_apart: Do, tmp_path: Path) -> None:
    do_apart(f"( until [ -e {tmp_path}/now ]; do sleep 0.05; done; printf noise; touch {tmp_path}/printed ) &")
    (tmp_path / "now").touch()
    until((tmp_path / "printed").exists, "the job has printed")
    assert do_apart("echo next").answer == "next\n"


def test_a_script_reaches_the_shell_byte_for_byte(do: Do, tmp_path: Path) -> None:
    do(written(ODD_TEXT, tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == ODD_TEXT.encode() + b"\n"


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("echo last line ends in a backslash\\", "last line ends in a backslash"),
        ("echo it''s \"!x\" '!x' !", "its !x !x !\n"),
        ("echo crlf\r\n", "crlf\r\n"),
        ("-n", "-n"),
        ("\n\n  echo 'blank lines before'\n\n", "blank lines before\n"),
        ("# only a comment", ""),
        ("echo 🚒; echo '$(id)' '`id`'", "🚒\n$(id) `id`\n"),
    ],
)
def test_odd_prompts_mean_what_they_mean_in_a_script(do: Do, prompt: str, answer: str) -> None:
    assert answer in do(prompt).answer


def test_a_prompt_of_200_kb_arrives_whole(do: Do, tmp_path: Path) -> None:
    text = "\n".join(f"{number} it's `this` $line \\" for number in range(9000))
    assert len(text) > 200_000
    result = do(written(text, tmp_path / "got") + f"sha256sum < {tmp_path}/got")
    assert result.answer.split()[0] == hashlib.sha256(text.encode() + b"\n").hexdigest()


def test_an_answer_of_10_mb_is_complete_in_its_file_and_head_and_tail_in_the_record(do: Do) -> None:
    size = 10 << 20
    result = do(f"echo BEGIN; head -c {size} /dev/zero | tr '\\0' x; echo; echo END")
    whole = Path(result.answer_file).read_bytes()
    assert whole == b"BEGIN\n" + b"x" * size + b"\nEND\n"
    assert result.answer_bytes == len(whole)
    assert result.answer.startswith("BEGIN\n")
    assert result.answer.endswith("\nEND\n")
    assert len(result.answer) < 100_000
    assert result.answer_file in result.answer


def test_a_job_left_in_the_background_does_not_hold_the_task(do: Do, torch: Torch) -> None:
    result = torch.enqueue("sleep 1000 & echo $!").result(timeout=15)
    job = psutil.Process(int(result.answer))
    try:
        assert result.succeeded
        assert job.is_running()
    finally:
        job.kill()


def test_wait_waits_for_the_tasks_own_jobs_alone(do: Do) -> None:
    assert do("{ sleep 0.2; echo job; } & wait; echo waited", timeout=20).answer == "job\nwaited\n"


def test_a_command_that_reads_the_keyboard_is_ended_by_the_time_out(do: Do) -> None:
    result = do("echo before; cat; echo never", timeout=1)
    assert result.status is TaskState.FAILED
    assert result.error.kind is FailureKind.TIMEOUT
    assert result.error.message == "timed out after 1 s"
    assert result.answer.startswith("before\n")
    assert "never" not in result.answer
    assert do("echo next").answer == "next\n"


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("sleep 600", id="sleeps"),
        pytest.param("while :; do :; done", id="spins"),
        pytest.param("while :; do sleep 0.1; done", id="loops"),
        pytest.param(
            "exec_me='import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)'\n"
            'python3 -c "$exec_me"',
            id="program-ignores-the-interrupt",
        ),
        pytest.param("trap : INT; while :; do :; done", id="shell-traps-the-interrupt"),
        pytest.param(
            "trap '' INT TERM HUP; while :; do sleep 0.1; done", id="shell-ignores-all-signals", marks=pytest.mark.slow
        ),
        pytest.param("(trap '' INT; sleep 600) | cat", id="pipeline"),
    ],
)
def test_whatever_runs_too_long_is_ended_and_the_agent_goes_on(do: Do, tmp_path: Path, prompt: str) -> None:
    result = do(f"echo $$ > {tmp_path}/shell\n{prompt}\ntouch {tmp_path}/went-on", timeout=1)
    assert result.error.kind is FailureKind.TIMEOUT
    after = do("trap - INT TERM HUP; pgrep -P $$ -a; echo next")
    assert "next\n" in after.answer
    assert not re.search(r"sleep.600", after.answer), "what the task started still runs"
    assert not (tmp_path / "went-on").exists()


def test_a_check_decides_not_the_exit_code(do: Do) -> None:
    good = do("echo tried; exit 1", check="true")
    assert good.succeeded
    assert [(evidence.kind, evidence.passed) for evidence in good.evidence] == [("exit_code", False), ("check", True)]
    bad = do("echo tried", check="echo not good >&2; exit 7")
    assert bad.status is TaskState.FAILED
    assert bad.error.kind is FailureKind.CHECK_FAILED
    assert "exit code 7" in bad.error.message
    assert "not good" in bad.evidence[-1].detail


def test_a_check_reads_the_answer_in_the_tasks_folder(do: Do, tmp_path: Path) -> None:
    check = f'grep -q needle "$TORCH_ANSWER" && [ "$PWD" = {tmp_path} ] && echo "$TORCH_TASK_ID" > seen'
    assert do("echo a needle", check=check, workdir=tmp_path, id="checked-1").succeeded
    assert (tmp_path / "seen").read_text() == "checked-1\n"
    assert not do("echo hay", check=check, workdir=tmp_path).succeeded


def test_a_check_that_does_not_end_is_ended_by_the_tasks_time_out(do: Do, tmp_path: Path) -> None:
    result = do("echo done", check=f"echo $$ > {tmp_path}/pid; sleep 600", timeout=2)
    assert result.error.kind is FailureKind.TIMEOUT
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_task_runs_in_its_folder(do: Do, tmp_path: Path) -> None:
    odd = tmp_path / "it's a $HOME; folder"
    odd.mkdir()
    assert do("pwd", workdir=odd).answer == f"{odd}\n"


def test_a_folder_that_is_not_there_is_refused_by_name(do: Do, tmp_path: Path) -> None:
    result = do(f"touch {tmp_path}/ran", workdir=tmp_path / "missing")
    assert result.status is TaskState.FAILED
    assert result.error.kind is FailureKind.REFUSED
    assert str(tmp_path / "missing") in result.error.message
    assert "node-a" in result.error.message
    assert not (tmp_path / "ran").exists()


def test_a_task_past_its_deadline_is_not_begun(do: Do, tmp_path: Path) -> None:
    result = do(f"touch {tmp_path}/ran", deadline=datetime.now(UTC) - timedelta(seconds=1))
    assert result.status is TaskState.FAILED
    assert result.error.kind is FailureKind.DEADLINE
    assert not (tmp_path / "ran").exists()


def test_a_task_is_ended_at_its_deadline(do: Do) -> None:
    result = do("echo began; sleep 600", deadline=datetime.now(UTC) + timedelta(seconds=2))
    assert result.error.kind is FailureKind.DEADLINE
    assert result.answer.startswith("began\n")


def test_a_task_finds_its_context_and_its_own_names(do: Do) -> None:
    context = {"ticket": "T-1", "files": ["a 'b'", "ü"], "deep": {"n": 1.5}}
    result = do('echo "$TORCH_TASK_ID $TORCH_AGENT_ID"; cat "$TORCH_CONTEXT"', context=context, id="named-1")
    names, _, told = result.answer.partition("\n")
    assert names == "named-1 developer-1"
    assert json.loads(told) == context


def test_the_pane_shows_the_task_and_its_output(do: Do, agent: AgentWorker) -> None:
    do("echo visible-$((6 * 7))")
    until(lambda: "visible-42" in agent.screen().splitlines(), "the output is in the pane")
    assert "echo visible-$((6 * 7))" in agent.screen()
