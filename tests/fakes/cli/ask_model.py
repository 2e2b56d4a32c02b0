"""Asks the model at ``OPENAI_BASE_URL``: the messages on standard input, what it said as JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request

body = {"model": "fake-model", "messages": json.load(sys.stdin), "tools": []}
request = urllib.request.Request(
    f"{os.environ['OPENAI_BASE_URL']}/chat/completions",
    json.dumps(body).encode(),
    {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "content-type": "application/json"},
)
try:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        print(json.dumps(json.load(answer)["choices"][0]["message"]))
except urllib.error.HTTPError as refused:
    print(json.dumps({"status": refused.code, "error": json.load(refused)["error"]["message"]}))
