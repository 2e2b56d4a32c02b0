"""OpenAI's failures, in both of its wire formats."""

from __future__ import annotations

import time
from typing import Any

from torch_tasks.workers.certify.fake_model.steps import Fail
from torch_tasks.workers.certify.fake_model.wire import ErrorAnswer

_ERRORS: dict[str, tuple[int, str, str | None, str]] = {
    "rate_limit": (
        429,
        "tokens",
        "rate_limit_exceeded",
        "Rate limit reached for fake-model in organization org-fake on tokens per min (TPM): Limit 30000, Used 29000,"
        " Requested 2000. Please try again in {retry_after}s. Visit https://platform.openai.com/account/rate-limits"
        " to learn more.",
    ),
    "usage_limit": (429, "usage_limit_reached", None, "The usage limit has been reached"),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details. For more information on this"
        " error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
    ),
    "overloaded": (
        503,
        "service_unavailable_error",
        "server_is_overloaded",
        "Our servers are currently overloaded. Please try again later.",
    ),
    "unauthorized": (
        401,
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided: sk-dummy. You can find your API key at"
        " https://platform.openai.com/account/api-keys.",
    ),
    "too_long": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
    "server_error": (
        500,
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
}


def openai_error(fail: Fail, param: str) -> ErrorAnswer:
    """The failure as OpenAI sends it; ``param`` names the field that may be too long."""
    status, kind, code, message = _ERRORS[fail.error]
    error: dict[str, Any] = {
        "message": fail.message or message.format(retry_after=fail.retry_after),
        "type": kind,
        "param": param if fail.error == "too_long" else None,
        "code": code,
    }
    headers = {"x-request-id": "req_fake"}
    if fail.error == "rate_limit":
        headers |= {"retry-after": str(fail.retry_after), "retry-after-ms": str(fail.retry_after * 1000)}
        headers |= {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-reset-tokens": f"{fail.retry_after}s",
        }
    if fail.error == "usage_limit":
        resets_at = int(time.time()) + fail.resets_in
        error = {"type": kind, "message": error["message"], "plan_type": "plus"}
        error |= {"resets_at": resets_at, "resets_in_seconds": fail.resets_in}
        headers |= {
            "x-codex-primary-used-percent": "100",
            "x-codex-primary-window-minutes": "300",
            "x-codex-primary-reset-at": str(resets_at),
            "x-codex-plan-type": "plus",
        }
    return ErrorAnswer(status, {"error": error}, headers)
