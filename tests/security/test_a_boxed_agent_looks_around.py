"""What an injected prompt tries first: to read, to write and to reach what is not its agent's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from boxed import BoxedMachine, boxed_machine


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """Where a server of this machine answers."""
    with HTTPServer(("127.0.0.2", 0), Hello) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.2:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def machine(page: str) -> Iterator[BoxedMachine]:
    with boxed_machine(network=page) as running:
        yield running


FETCH = f"{sys.executable} -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read())'"


def test_it_reaches_the_hosts_on_its_list_alone(machine: BoxedMachine, page: str) -> None:
    assert "a page" in machine.attack(f"{FETCH} http://{page}/", agent="dev-2")
    said = machine.attack(f"{FETCH} http://evil.example/", agent="dev-2")
    assert "403" in said
    assert "its program may not reach evil.example:80" in machine.log("agent-dev-2")
    host, _, port = page.partition(":")
    past = f'import socket; socket.create_connection(("{host}", {port}), 5)'
    assert "refused" in machine.attack(f"{sys.executable} -c '{past}' || echo refused", agent="dev-2")


def test_it_plants_what_git_would_run_outside(machine: BoxedMachine) -> None:
    said = machine.attack(
        "git commit -q --allow-empty -m one && echo committed; git config core.fsmonitor evil || echo refused; "
        "echo evil >.git/hooks/pre-commit || echo refused; mv .git .other || echo refused; "
        "rm -rf .git/hooks/ .git/config; ln -sf evil .git/config; echo looked"
    )
    assert "committed" in said
    assert said.count("refused") >= 3
    assert "evil" not in (machine.mine / ".git/config").read_text()
    assert not (machine.mine / ".git/hooks/pre-commit").exists()


def test_it_reads_the_state_folder_the_users_keys_and_torchs_configuration(machine: BoxedMachine) -> None:
    said = machine.attack(
        'for f in "$TORCH_STATE_DIR"/broker.json "$TORCH_STATE_DIR"/broker/* "$TORCH_STATE_DIR"/server.token '
        '"$TORCH_STATE_DIR"/agents/*/journal.json "$TORCH_STATE_DIR"/agents/dev-2/* "$TORCH_CONFIG_DIR"/torch.toml '
        "~/.ssh/id_ed25519 ~/.aws/credentials ~/.bashrc /etc/shadow; do "
        'cat "$f" 2>/dev/null && echo "READ $f"; done; echo looked'
    )
    assert said.split() == ["looked"]
    assert (machine.state / "broker.json").exists(), "there was something to read"


def test_it_types_into_another_agents_terminal(machine: BoxedMachine) -> None:
    for socket in (machine.state / "agents/dev-2/tmux", machine.state / "agents/dev-1/tmux"):
        said = machine.attack(
            f"command -v tmux && {{ tmux -S {socket} send-keys 'touch typed' Enter || echo refused; }}"
        )
        assert "/tmux" in said, "it has the means"
        assert "refused" in said, socket
    assert not list(machine.work.rglob("typed"))


def test_it_looks_for_other_processes_and_their_environments(machine: BoxedMachine) -> None:
    said = machine.attack("cat /proc/[0-9]*/environ | tr '\\0' '\\n'; ps axww -o args")
    assert "TORCH_AGENT_ID=dev-1" in said, "it sees its own"
    assert "hush" not in said
    assert "torch_tasks.cli" not in said
    assert "dev-2" not in said
    said = machine.attack(f"kill -9 {machine.living('node').pid} {machine.living('up').pid} || echo refused")
    assert "refused" in said
    assert machine.living("node")


def test_it_reaches_the_broker_past_its_desk(machine: BoxedMachine) -> None:
    program = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    said = machine.attack(f"{sys.executable} -c '{program}' {machine.state}/broker/sock || echo refused")
    assert "FileNotFoundError" in said
    assert "refused" in said


def test_it_writes_where_a_persons_own_programs_would_run_it(machine: BoxedMachine) -> None:
    command = "notify_command = 'touch /tmp/notified'"
    machine.attack(
        f'echo "{command}" >>"$TORCH_CONFIG_DIR/torch.toml"; echo evil >>~/.bashrc; mkdir -p ~/.config/systemd/user; '
        "echo evil >~/.config/systemd/user/evil.service; echo evil >>~/.ssh/authorized_keys; "
        'touch "$TORCH_STATE_DIR/STOP"; echo evil >/tmp/for-others'
    )
    assert "notify" not in (machine.folder / "config/torch.toml").read_text()
    assert (machine.home / ".bashrc").read_text() == "# the user's\n"
    assert not (machine.home / ".config/systemd").exists()
    assert not (machine.home / ".ssh/authorized_keys").exists()
    assert not (machine.state / "STOP").exists()
    assert "evil" in machine.attack("cat /tmp/for-others ~/.bashrc"), "what it wrote is its own"


def test_its_desk_and_its_own_folder_are_there(machine: BoxedMachine) -> None:
    said = machine.attack("pwd; echo mine >file; torch-tasks agents; git config user.name")
    assert str(machine.mine) in said
    assert "dev-2" in said
    assert "Ann" in said
    assert (machine.mine / "file").read_text() == "mine\n"


def test_it_works_in_the_folder_of_a_task_and_in_no_hidden_one(machine: BoxedMachine) -> None:
    said = machine.attack("pwd; ls; echo there >there", "--workdir", str(machine.others))
    assert str(machine.others) in said
    assert (machine.others / "there").exists()
    said = machine.attack("cat id_ed25519", "--workdir", str(machine.home / ".ssh"))
    assert "no box shows" in said
    assert "a private key" not in said
    assert str(machine.mine) in machine.attack("pwd"), "the next task is at home again"


def test_its_entry_says_that_it_is_boxed(machine: BoxedMachine) -> None:
    assert machine.entry("dev-1")["sandbox"] == "boxed"
    assert "agents are boxed (TORCH_SANDBOX=always)" in machine.torch("doctor", code=None).stdout


def test_its_answer_is_a_link_to_what_only_its_worker_may_read(machine: BoxedMachine) -> None:
    said = machine.attack(f"exec >/dev/null 2>&1; ln -sf {machine.home}/.ssh/id_ed25519 $__torch_run/output")
    runs = machine.state / "agents/dev-1/program/runs"
    assert any(answer.is_symlink() for answer in runs.glob("*/output")), "the link was laid"
    assert "private" not in said


def test_the_check_of_its_task_leaves_the_box(machine: BoxedMachine) -> None:
    check = f"cat {machine.home}/.ssh/id_ed25519 {machine.state}/broker.json >stolen; echo evil >>~/.bashrc"
    machine.attack("true", "--check", check)
    assert (machine.mine / "stolen").read_text() == ""
    assert (machine.home / ".bashrc").read_text() == "# the user's\n"
    machine.attack("true", "--check", "test -e stolen", code=0)


def test_its_tasks_in_a_folder_of_theirs_leave_their_files_there(machine: BoxedMachine) -> None:
    project = machine.work / "project"
    project.mkdir()
    for number in "12":  # the first starts a program in the folder, the second finds one there
        machine.attack(f"touch made-{number}", "--workdir", str(project), code=0)
    assert {file.name for file in project.iterdir()} == {"made-1", "made-2"}
    assert str(machine.mine) in machine.attack("pwd", code=0)
