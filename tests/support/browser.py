"""Pages in headless Chromium: a script of the test runs inside the page, what it finds comes back as JSON.

The page is shown in a frame of any width, because a window of Chromium cannot be as narrow as a phone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FRAME = """<!DOCTYPE html><html><body style="margin:0"><iframe src="page.html" style="border:0;width:%dpx;height:800px">
</iframe><pre id="found"></pre><script>
addEventListener("message", event => { document.getElementById("found").textContent = JSON.stringify(event.data); });
</script></body></html>"""
CATCH = "<script>window.faults = []; addEventListener('error', event => faults.push(event.message));</script>"
RUN = """<script>addEventListener("load", async () => {
  let found;
  try { found = await (async () => { %s })(); } catch (error) { faults.push(String(error)); }
  parent.postMessage({found, faults}, "*");
});</script></body>"""


class Shown(NamedTuple):
    """What the script returned; uncaught errors in the page; lines of the console."""

    found: Any
    faults: list[str]
    console: list[str]


def chromium() -> str:
    """Returns the browser's path; skips the test where there is none."""
    given = os.environ.get("VGB_CHROMIUM")
    path = given or next(filter(None, map(shutil.which, NAMES)), None)
    if not path:
        pytest.skip("needs Chromium to open the page (apt-get install chromium, or set VGB_CHROMIUM)")
    return path


def show(html: str, folder: Path, script: str, width: int = 1280) -> Shown:
    """Opens a page in a frame `width` pixels wide and runs the body of an async function in it, after loading.

    The page's own security policy stays in force, bar that it lets this script run.
    """
    page = html.replace("<head>", "<head>" + CATCH, 1).replace("</body>", RUN % script)
    assert page.count(CATCH) == 1 and "parent.postMessage" in page
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME % width)
    # as root, in a container: no sandbox; no GPU; nothing of a real profile
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [
        chromium(),
        *flags,
        profile,
        "--virtual-time-budget=10000",
        "--dump-dom",
        (folder / "frame.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert found and found[1], f"the page did not answer\n{done.stderr[-2000:]}"
    answer = json.loads(unescape(found[1]))
    return Shown(
        answer.get("found"), answer["faults"], [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    )
