"""The pages by which people come in and go, and that of a failure: plain forms and links, which need no script."""

from __future__ import annotations

from functools import cache

from starlette.responses import HTMLResponse

from torch_tasks.server.console.rendering import Templates

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
}


def login_page(provider: str | None, then: str, refused: str = "", status: int = 200) -> HTMLResponse:
    """Where people log in: at the provider, if there is one, or with a token; ``then`` is where they want to go."""
    return _page("login", status, provider=provider, then=then, refused=refused)


def own_page(name: str, role: str, by_cookie: bool) -> HTMLResponse:
    """Who the server takes the reader for, and where to go from there."""
    return _page("me", name=name, role=role, by_cookie=by_cookie)


def fault_page(said: str) -> HTMLResponse:
    """That the server failed in a way that was not foreseen."""
    return _page("fault", 500, said=said)


def _page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    return HTMLResponse(_templates().render(template, values), status, _HEADERS)


@cache
def _templates() -> Templates:
    return Templates()
