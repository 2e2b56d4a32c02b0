"""A small collector of OpenTelemetry's, on loopback: takes and keeps spans, logs and metrics by OTLP over HTTP."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_REQUESTS: dict[str, Any] = {
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/traces": ExportTraceServiceRequest,
}


class KeptSpans:
    """What a collector got."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.resources: list[dict[str, Any]] = []
        self.authorization = ""
        self.refuses = False
        """Whether it answers that it is unavailable."""
        self.refused = 0
        self.of_programs: list[dict[str, Any]] = []
        """What agents' programs sent of their own: logs, metrics and spans, each message as its JSON."""

    def take_of_program(self, path: str, body: bytes, kind: str) -> int:
        """Keep what a program sent, in whichever form its library writes it."""
        if path not in _REQUESTS:
            return 404
        if "json" in kind:
            self.of_programs.append(json.loads(body))
        else:
            request = _REQUESTS[path].FromString(body)
            self.of_programs.append(MessageToDict(request))
        return 200

    def take(self, path: str, message: dict[str, Any]) -> int:
        if self.refuses:
            self.refused += 1
            return 503
        if path != "/v1/traces" or not is_otlp(message):
            return 400
        for of_resource in message["resourceSpans"]:
            self.resources.append(attributes(of_resource["resource"]))
            self.spans += [span for of_scope in of_resource["scopeSpans"] for span in of_scope["spans"]]
        return 200

    def names(self, task_id: str) -> list[str]:
        """The names of the spans of a task, each once."""
        found = {span["spanId"]: span["name"] for span in self.spans if attributes(span)["torch.task"] == task_id}
        return list(found.values())


def attributes(of: Mapping[str, Any]) -> dict[str, str | int]:
    return {
        one["key"]: int(value) if kind == "intValue" else value
        for one in of["attributes"]
        for kind, value in one["value"].items()
    }


def is_otlp(message: dict[str, Any]) -> bool:
    """Whether each field is one of OTLP's; the ids, which it writes in its JSON in hex, have the right length."""
    written = copy.deepcopy(message)
    try:
        for of_resource in written["resourceSpans"]:
            for span in (span for of_scope in of_resource["scopeSpans"] for span in of_scope["spans"]):
                for one in (span, *span.get("links", ())):
                    for name in {"traceId", "spanId", "parentSpanId"} & one.keys():
                        one[name] = base64.b64encode(bytes.fromhex(one[name])).decode()
        request = ParseDict(written, ExportTraceServiceRequest())
    except ParseError:
        return False
    spans = [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]
    return all((len(span.trace_id), len(span.span_id)) == (16, 8) for span in spans)


@contextmanager
def collector() -> Iterator[tuple[KeptSpans, str]]:
    """What a running collector gets, and its address."""
    kept = KeptSpans()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.authorization = self.headers.get("authorization", "")
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            body = b"".join(self._chunks()) if chunked else self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            kind = self.headers.get("Content-Type", "")
            is_torchs = self.headers.get("User-Agent", "").startswith("python-httpx")
            status = (
                kept.take(self.path, json.loads(body)) if is_torchs else kept.take_of_program(self.path, body, kind)
            )
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield kept, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
