"""Makes the console's icons of its picture: ``python docs/make_icons.py`` (with the extra ``dev``, and Chromium)."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

STATIC = Path(__file__).parents[1] / "torch_tasks" / "server" / "console" / "static"
GROUND = "#14171a"
ICONS = {"icon-192.png": (192, 0.78, 0.18), "icon-512.png": (512, 0.78, 0.18), "icon-maskable.png": (512, 0.58, 0)}
"""The size of each, how much of it the picture takes, and how round its corners are. A phone cuts the maskable one."""


def main() -> None:
    drawing = (STATIC / "torch.svg").read_text()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (size, part, round_) in ICONS.items():
            page = browser.new_page(viewport={"width": size, "height": size})
            inside = f"width:{size * part:.0f}px;height:{size * part:.0f}px"
            page.set_content(
                f"<body style='margin:0'><div style='display:grid;place-items:center;width:{size}px;height:{size}px;"
                f"background:{GROUND};border-radius:{size * round_:.0f}px'><div style='{inside}'>{drawing}</div></div>"
            )
            page.screenshot(path=STATIC / name, omit_background=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
