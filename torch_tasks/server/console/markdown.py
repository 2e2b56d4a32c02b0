"""What agents and people wrote, as Markdown: data that can be read, and nothing that loads, runs or hides."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup

from torch_tasks.visible_text import visible

LONGEST = 10_000
"""So much of a text is drawn; the whole is behind a link."""
SCHEMES = frozenset({"http", "https", "mailto"})
_LOWEST_HEADING = 6
_UNDER = 2
"""A text's headings stand under those of the page."""
_ALIGNED = {"text-align:left": "left", "text-align:center": "centre", "text-align:right": "right"}
_Environment = MutableMapping[str, Any]


class _Renderer(RendererHTML):
    """HTML without images, inline styles or links that do not show where they lead."""

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Environment) -> str:
        """An image is named, not loaded."""
        one = tokens[idx]
        named = self.renderInlineAsText(one.children or [], options, env)
        return f'<span class="target">[image: {escapeHtml(named)} {escapeHtml(str(one.attrGet("src") or ""))}]</span>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Environment) -> str:
        env.setdefault("targets", []).append(str(tokens[idx].attrGet("href") or ""))
        return f'<a href="{escapeHtml(env["targets"][-1])}" rel="noreferrer noopener nofollow" target="_blank">'

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: _Environment) -> str:
        return f'</a> <span class="target">({escapeHtml(env["targets"].pop())})</span>'


def _leads_somewhere(url: str) -> bool:
    try:
        return urlsplit(url.strip()).scheme.lower() in SCHEMES
    except ValueError:
        return False


def _made() -> MarkdownIt:
    how = {"html": False, "breaks": True, "maxNesting": 20}  # what a shell printed keeps its lines
    made = MarkdownIt("commonmark", how, renderer_cls=_Renderer)
    made.enable(["table", "strikethrough"])
    made.validateLink = _leads_somewhere  # type: ignore[method-assign]
    return made


_MARKDOWN = _made()


@lru_cache(maxsize=64)
def drawn(text: str) -> Markup:
    """The beginning of a text as HTML."""
    env: _Environment = {}
    tokens = _MARKDOWN.parse(text[:LONGEST], env)
    for one in tokens:
        if one.type in ("heading_open", "heading_close"):
            one.tag = f"h{min(int(one.tag[1:]) + _UNDER, _LOWEST_HEADING)}"
        if style := one.attrs.pop("style", None):
            one.attrSet("class", _ALIGNED.get(str(style), ""))
    # What was written is escaped by the renderer; a sign in the place of a character closes no tag.
    return Markup(visible(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, env)))  # noqa: S704
