"""The few pages of the server itself: plain forms and links, which need no script."""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, Response

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
}
STYLE_PATH = "/login/style.css"
_STYLE = """\
:root { color-scheme: light dark; background: light-dark(#ffffff, #14171a); color: light-dark(#1b2127, #e6e9ec); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 12vh auto 0; padding: 0 1rem; }
h1 { font-size: 1.4rem; }
p.refused { border-left: 4px solid #c0392b; padding-left: .8rem; }
label { display: block; margin: 1.5rem 0 .3rem; }
input, button, a.button { box-sizing: border-box; font: inherit; width: 100%; padding: .55rem .7rem; }
input { border: 1px solid #8888; border-radius: 6px; }
button, a.button { display: block; margin-top: .6rem; border: 0; border-radius: 6px; background: #2d5bd1; color: #fff; }
a.button { text-align: center; text-decoration: none; }
p a:not(.button) { color: light-dark(#1f54c4, #8ab0ff); }
dl { display: grid; grid-template-columns: auto 1fr; gap: .3rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def style() -> Response:
    return Response(_STYLE, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


def login_page(provider: str | None, back_to: str, refused: str = "", status: int = 200) -> Response:
    """Where people log in: at the provider, if there is one, or with a token."""
    hidden = f'<input type="hidden" name="next" value="{escape(back_to)}">'
    parts = [f'<p class="refused" role="alert">{escape(refused)}</p>' if refused else ""]
    if provider:  # a link: browsers hold a form to its policy even where it is redirected, and that leads elsewhere
        address = f"/login/provider?{urlencode({'next': back_to})}"
        parts.append(f'<p><a class="button" href="{escape(address)}">Log in at {escape(provider)}</a></p>')
    parts.append(
        f'<form method="post" action="/login">{hidden}<label for="token">{"Or with a token" if provider else "Token"}'
        '</label><input id="token" name="token" type="password" autocomplete="off" required>'
        "<button>Log in with the token</button></form>"
    )
    return _page("Log in to Torch", "".join(parts), status)


def own_page(name: str, role: str, by_cookie: bool) -> Response:
    """Who the server takes the reader for, and where to go from there."""
    leave = '<form method="post" action="/logout"><button>Log out</button></form>' if by_cookie else ""
    return _page(
        "Torch",
        f"<dl><dt>You are</dt><dd>{escape(name)}</dd><dt>Role</dt><dd>{escape(role)}</dd></dl>"
        f'<p><a href="/">The console</a> · <a href="/flower/">Flower</a></p>{leave}',
    )


def _page(title: str, content: str, status: int = 200) -> Response:
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><link rel="stylesheet" href="{STYLE_PATH}">'
        f"</head><body><main><h1>{escape(title)}</h1>{content}</main></body></html>",
        status,
        HEADERS,
    )
