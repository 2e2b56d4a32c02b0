"""The fake model that the real CLIs are tested with: its four wire formats, its rules, and above all its log."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from torch_tasks.workers.certify.fake_model.client import FakeLLM
from torch_tasks.workers.certify.fake_model.steps import Await, Call, Drop, Fail, Step, Text, Tokens

APIS = ["anthropic", "openai-responses", "openai-chat", "gemini"]
PATHS = {
    "anthropic": "/v1/messages?beta=true",
    "openai-responses": "/v1/responses",
    "openai-chat": "/v1/chat/completions",
    "gemini": "/v1beta/models/fake-model:generateContent",
}
Body = dict[str, Any]


@pytest.fixture
def llm(tmp_path: Path) -> Iterator[FakeLLM]:
    """A fake model, new for this test."""
    with FakeLLM(tmp_path / "llm") as llm:
        yield llm


class Client:
    """Speaks one wire format, as the agent with this key."""

    def __init__(self, llm: FakeLLM, api: str, key: str = "sk-one") -> None:
        self._llm = llm
        self.api = api
        self._key = {"x-api-key": key} if api == "anthropic" else {"authorization": f"Bearer {key}"}

    def post(self, body: Body, path: str | None = None) -> http.client.HTTPResponse:
        """The answer to the body, its head read."""
        connection = http.client.HTTPConnection("127.0.0.1", self._llm.port, timeout=20)
        connection.request("POST", path or PATHS[self.api], json.dumps(body), self._key)
        return connection.getresponse()

    def ask(self, *said: str | Body, **more: Any) -> Body:
        """The whole answer to a conversation: strings are the person's, dicts stand as they are."""
        told: Body = json.loads(self.post(conversation(self.api, *said, **more)).read())
        return told

    def stream(self, *said: str | Body) -> list[Body]:
        """The events of the streamed answer."""
        path = PATHS["gemini"].replace("generate", "streamGenerate") + "?alt=sse" if self.api == "gemini" else None
        answer = self.post(conversation(self.api, *said, **({} if path else {"stream": True})), path)
        assert answer.status == 200
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        lines = [line[6:] for line in answer.read().decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


def conversation(api: str, *said: str | Body, **more: Any) -> Body:
    """A request's body."""
    field = {"openai-responses": "input", "gemini": "contents"}.get(api, "messages")
    body = {field: [_user(api, item) if isinstance(item, str) else item for item in said], **more}
    return body if api == "gemini" else {"model": "fake-model", **body}


def _user(api: str, text: str) -> Body:
    content: Body = {"parts": [{"text": text}]} if api == "gemini" else {"content": text}
    return {"role": "user", **content}


def exchange(api: str, name: str, result: str) -> list[Body]:
    """A tool's call and its result, as a client sends them back."""
    call: Body = {"id": "c1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    exchanges: dict[str, list[Body]] = {
        "anthropic": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": name, "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": result}]},
        ],
        "openai-responses": [
            {"type": "function_call", "call_id": "c1", "name": name, "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": result},
        ],
        "openai-chat": [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": result},
        ],
        "gemini": [
            {"role": "model", "parts": [{"functionCall": {"name": name, "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": name, "response": result}}]},
        ],
    }
    return exchanges[api]


def text_of(api: str, event: Body) -> str:
    """What an event of a stream adds to the answer's text."""
    if api == "anthropic":
        return str(event.get("delta", {}).get("text", ""))
    if api == "openai-responses":
        return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""
    if api == "openai-chat":
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return "".join(part.get("text", "") for part in event["candidates"][0]["content"]["parts"])


def whole_text(api: str, answer: Body) -> str:
    """The text of an answer in one piece."""
    if api == "anthropic":
        return "".join(block["text"] for block in answer["content"])
    if api == "openai-responses":
        return "".join(part["text"] for item in answer["output"] for part in item["content"])
    if api == "openai-chat":
        return str(answer["choices"][0]["message"]["content"])
    return text_of(api, answer)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("api", APIS)
def test_a_text_is_the_same_streamed_and_whole(llm: FakeLLM, api: str) -> None:
    said = "é 漢字 \n 'quoted' \"twice\" " * 5
    llm.on("hello", Tokens(1234, 56), Text(said, chunk=7))
    client = Client(llm, api)
    events = client.stream("hello")
    assert "".join(text_of(api, event) for event in events) == said
    assert len([event for event in events if text_of(api, event)]) > 3
    assert "1234" in json.dumps(events)
    whole = client.ask("hello")
    assert whole_text(api, whole) == said
    assert "1234" in json.dumps(whole)
    assert "56" in json.dumps(whole)
    assert whole_text(api, client.ask("a" * 100)) == "You said: " + "a" * 60, "where no rule fits"


@pytest.mark.parametrize("api", APIS)
def test_a_tools_result_gets_the_step_after_the_call(llm: FakeLLM, api: str) -> None:
    llm.on("use it", "First this.", Call("Shell", {"command": "ls -a"}), "Then that.")
    client = Client(llm, api)
    called = json.dumps(client.stream("use it"))
    assert "Shell" in called
    assert "ls -a" in called
    events = client.stream("use it", *exchange(api, "Shell", "the files"))
    assert "".join(text_of(api, event) for event in events) == "Then that."
    assert llm.prompts() == ["use it"]
    assert [request.continues for request in llm.requests()] == [False, True]
    assert "the files" in llm.requests()[1].tool_results[0]


ERRORS = [
    ("anthropic", "rate_limit", 429, "rate_limit_error", "anthropic-ratelimit-tokens-reset"),
    ("anthropic", "usage_limit", 429, "your account's rate limit", "anthropic-ratelimit-unified-reset"),
    ("anthropic", "quota", 400, "credit balance is too low", "request-id"),
    ("anthropic", "overloaded", 529, "overloaded_error", "request-id"),
    ("anthropic", "unauthorized", 401, "invalid x-api-key", "request-id"),
    ("anthropic", "too_long", 400, "prompt is too long", "request-id"),
    ("anthropic", "server_error", 500, "api_error", "request-id"),
    ("openai-responses", "rate_limit", 429, "Please try again in 7s", "retry-after"),
    ("openai-responses", "usage_limit", 429, "resets_at", "x-codex-primary-reset-at"),
    ("openai-responses", "too_long", 400, "context_length_exceeded", "x-request-id"),
    ("openai-chat", "quota", 429, "insufficient_quota", "x-request-id"),
    ("openai-chat", "overloaded", 503, "server_is_overloaded", "x-request-id"),
    ("openai-chat", "unauthorized", 401, "invalid_api_key", "x-request-id"),
    ("gemini", "rate_limit", 429, "PerMinute", "content-type"),
    ("gemini", "usage_limit", 429, "PerDay", "content-type"),
    ("gemini", "overloaded", 503, "UNAVAILABLE", "content-type"),
    ("gemini", "unauthorized", 400, "API_KEY_INVALID", "content-type"),
    ("gemini", "server_error", 500, "INTERNAL", "content-type"),
]


def test_each_service_fails_in_its_own_words(llm: FakeLLM) -> None:
    for api, error, status, words, header in ERRORS:
        llm.on("fail", Fail(error, retry_after=7), "at last")
        client = Client(llm, api)
        answer = client.post(conversation(api, "fail"))
        assert (api, error, answer.status) == (api, error, status)
        assert words in answer.read().decode()
        assert answer.getheader(header)
        assert whole_text(api, client.ask("fail")) == "at last"


@pytest.mark.parametrize("api", APIS)
def test_a_failure_after_a_text_is_told_inside_the_stream(llm: FakeLLM, api: str) -> None:
    llm.on("fail", "half of it", Fail("overloaded", message="too many of you"))
    body = conversation(api, "fail", stream=True)
    path = PATHS[api].replace("generateContent", "streamGenerateContent")
    told = Client(llm, api).post(body, path).read().decode()
    assert told.index("half of it") < told.index("too many of you")
    assert llm.outcome(llm.requests()[0]) == "failed"


@pytest.mark.parametrize("before", [(), (Text("half of it"),)])
def test_a_cut_connection_is_felt_and_its_retry_told_apart(llm: FakeLLM, before: tuple[Step, ...]) -> None:
    llm.on("cut", *before, Drop(), "whole again")
    client = Client(llm, "anthropic")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        client.stream("cut")
    assert whole_text("anthropic", client.ask("cut")) == "whole again"
    assert [request.retry for request in llm.requests()] == [False, True]
    assert [llm.outcome(request) for request in llm.requests()] == ["dropped", "complete"]
    assert llm.prompts() == ["cut"]


def test_a_held_answer_goes_on_when_it_is_released(llm: FakeLLM) -> None:
    llm.on("wait", "Let me see. ", Await("thought"), "I see.")
    body = json.dumps(conversation("openai-chat", "wait", stream=True))
    with socket.create_connection(("127.0.0.1", llm.port)) as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: llm.holding("thought"), "the answer is held")
        assert llm.outcome(llm.requests()[0]) is None
        llm.release("thought")
        until(lambda: llm.outcome(llm.requests()[0]) == "complete", "the answer is out")
    assert llm.holding("thought") == 0


def test_a_client_that_leaves_is_seen_to_leave(llm: FakeLLM) -> None:
    llm.on("wait", Await("thought"))
    connection = http.client.HTTPConnection("127.0.0.1", llm.port, timeout=20)
    connection.request("POST", PATHS["openai-chat"], json.dumps(conversation("openai-chat", "wait")))
    until(lambda: llm.holding("thought"), "the answer is held")
    connection.close()
    until(lambda: llm.outcome(llm.requests()[0]) == "aborted", "the client is gone")
    llm.release("thought")
    Client(llm, "openai-chat").ask("wait")
    assert llm.prompts() == ["wait", "wait"], "a client that left of its own accord and comes again asks again"


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_rule_that_fits_answers(llm: FakeLLM) -> None:
    client, other = Client(llm, "openai-chat"), Client(llm, "openai-chat", key="sk-two")

    def answer(prompt: str, client: Client = client) -> str:
        return whole_text("openai-chat", client.ask(prompt))

    llm.on("a", "old")
    assert answer("a") == "old"
    newer = llm.on(r"^a+\Z", "new", regex=True)
    assert answer("aaa") == "new"
    assert answer("a b") == "old"
    llm.on("a", "only for two", key="sk-two")
    assert (answer("a"), answer("a", other)) == ("new", "only for two")
    llm.on("a", "twice", times=2)
    assert [answer("a") for _ in range(3)] == ["twice", "twice", "new"]
    llm.off(newer)
    assert answer("a") == "old"


# ── log ──────────────────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = "<not-added>\n\tit's `$HOME` \\\r\n# To suggest changes <system-reminder> 🚒  "
TAGGED = "<task>\nall of it in a tag\n</task>"


@pytest.mark.parametrize("api", APIS)
def test_the_prompt_is_logged_byte_for_byte(llm: FakeLLM, api: str) -> None:
    client = Client(llm, api, key="sk-two")
    client.ask(HOSTILE)
    client.ask(TAGGED)
    assert [request.added for request in llm.requests()] == [[], []]
    assert {(request.api, request.key) for request in llm.requests()} == {(api, "sk-two")}
    assert llm.prompts(key="sk-two") == [HOSTILE, TAGGED]
    assert llm.prompts(key="sk-one") == []


@pytest.mark.parametrize(
    ("api", "added", "prompt"),
    [
        ("anthropic", "<system-reminder>\nToday is a day.\n</system-reminder>\n", HOSTILE),
        ("anthropic", "[Request interrupted by user for tool use]", "go on"),
        ("openai-responses", "<environment_context>\n  <cwd>/x</cwd>\n</environment_context>", HOSTILE),
        ("gemini", "<session_context>\nThis is the Gemini CLI.\n</session_context>", HOSTILE),
        ("openai-chat", "What did we do so far?", HOSTILE),
    ],
)
def test_what_the_cli_says_as_the_user_is_told_apart(llm: FakeLLM, api: str, added: str, prompt: str) -> None:
    Client(llm, api).ask(added, prompt)
    [request] = llm.requests()
    assert (request.prompt, request.added, request.user_texts) == (prompt, [added], [prompt])


def test_aiders_reminder_is_cut_off_the_prompt(llm: FakeLLM) -> None:
    reminder = "\n\nTo suggest changes to a file you MUST return the entire content of the updated file."
    Client(llm, "openai-chat").ask(HOSTILE + reminder)
    assert (llm.prompts(), llm.requests()[0].added) == ([HOSTILE], [reminder])


def test_what_the_cli_asks_on_its_own_is_no_prompt(llm: FakeLLM) -> None:
    llm.on("", "a rule for everything")
    schema = {"type": "object", "properties": {"title": {"type": "string"}, "score": {"type": "integer"}}}
    title = Client(llm, "anthropic").ask(
        "<session>x</session>",
        system="Generate a concise, sentence-case title for this.",
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert json.loads(whole_text("anthropic", title)) == {"title": "A fake text", "score": 1}
    Client(llm, "openai-chat").ask("x", {"role": "system", "content": "You are a title generator."})
    routing = {"systemInstruction": {"parts": [{"text": "You are a specialized Task Routing AI."}]}}
    Client(llm, "gemini").ask("x", **routing)
    Client(llm, "openai-responses").ask("x", "You are performing a CONTEXT CHECKPOINT COMPACTION. Summarize.")
    Client(llm, "anthropic").post(conversation("anthropic", "x"), "/v1/messages/count_tokens").read()
    Client(llm, "anthropic").post({"events": []}, "/api/event_logging/batch").read()
    assert [request.side for request in llm.requests()] == ["title", "title", "routing", "compaction", "count", "other"]
    assert llm.prompts() == []


def test_a_prompt_submitted_twice_is_logged_twice_and_its_retry_never(llm: FakeLLM) -> None:
    answered = {"role": "assistant", "content": "yes"}
    client = Client(llm, "anthropic")
    client.ask("again")
    client.ask("again", answered, "again")
    assert llm.prompts() == ["again", "again"]

    llm.on("long", Fail("too_long"), "shorter, thanks")
    client.ask("again", answered, "again", answered, "long")
    shortened = "This session is being continued from a previous conversation that ran out of context. …"
    assert whole_text("anthropic", client.ask(shortened, "long")) == "shorter, thanks"
    assert llm.prompts() == ["again", "again", "long"]
