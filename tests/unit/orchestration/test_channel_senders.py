"""What a command and a service of apprise's are told, and what is said where one does not take it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from torch_tasks.orchestration.attention import Need, NeedKind
from torch_tasks.orchestration.channels import CommandSender, TargetSender

NEED = Need.of(NeedKind.QUESTION, "t 1", "dev-1 asks: May I?", "torch-tasks answer t CHOICE", agent="dev-1", task="t")


class Service:
    """A service that takes JSON, or refuses it."""

    def __init__(self) -> None:
        self.status, self.told = 200, list[dict[str, str]]()
        service = self

        class Endpoint(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(service.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def target(self) -> SecretStr:
        return SecretStr(f"json://me:s3cret-word@127.0.0.1:{self.server.server_port}/")


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


def test_a_service_is_told_what_it_is_about_and_where_to_look(service: Service) -> None:
    assert TargetSender(service.target, "https://torch.example").tell([NEED]) == ""
    [told] = service.told
    assert told["title"] == "Torch: question dev-1"
    assert told["message"].splitlines() == [NEED.text, NEED.do, "https://torch.example"]


def test_a_service_that_refuses_is_said_without_its_address(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.status = 500
    with caplog.at_level(logging.DEBUG):
        assert "did not take it" in TargetSender(service.target, None).tell([NEED])
        assert "does not know" in TargetSender(SecretStr("nonsense://s3cret-word"), None).tell([NEED])
    assert "s3cret-word" not in caplog.text


def test_a_command_gets_the_facts_and_its_failure_is_said(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = f'echo "$TORCH_NOTIFY_KIND $TORCH_NOTIFY_AGENT $TORCH_NOTIFY_TEXT" > {told}; echo no signal; exit $CODE'
    assert CommandSender(f"CODE=0; {command}").tell([NEED]) == ""
    assert told.read_text() == "question dev-1 dev-1 asks: May I?\n"
    assert CommandSender(f"CODE=7; {command}").tell([NEED]) == (
        "the notify command ended with exit code 7. Its output: no signal"
    )
