"""A real browser: Debian's Chromium without a window, in which somebody has logged in at a server under test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect, sync_playwright
from served import Served

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1400, "height": 900}
SOON_MS = 15_000
expect.set_options(timeout=SOON_MS)


@contextmanager
def chromium() -> Iterator[Chromium]:
    """The browser; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Window:
    """One window of a person, and what went wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(SOON_MS)
        self.errors: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def forgive(self, status: str) -> None:
        """The browser says of what the server refused that it could not load it: the test has asked for that."""
        said = f"the server responded with a status of {status}"
        assert any(said in error for error in self.errors), self.errors
        self.errors = [error for error in self.errors if said not in error]

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)


@contextmanager
def logged_in(browser: Chromium, server: Served, token: str | None = None, **how: Any) -> Iterator[Window]:
    """A window of somebody who logged in with this token, or as the folder's owner; no script failed there."""
    context = browser.new_context(base_url=server.url, viewport=how.pop("viewport", DESK), **how)
    form = {"token": token or server.own_token}
    context.request.post("/login", form=form, headers={"Origin": server.url}, max_redirects=0)
    window = Window(context)
    yield window
    context.close()
    assert not window.errors, window.errors
