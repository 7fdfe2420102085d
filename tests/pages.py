"""Pages in a real browser: headless Chromium, and what a person or the network would notice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# Added to a copy of the page: which texts of one chart lie on each other, on a point or outside, and what scrolls.
_PROBE = """<script>
const found = [];
for (const svg of document.querySelectorAll('svg')) {
  const frame = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll('text')].filter(t => t.textContent).map(t => [t, t.getBoundingClientRect()]);
  const points = [...svg.querySelectorAll('circle')].map(c => c.getBoundingClientRect());
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
  boxes.forEach(([t, a], i) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1) found.push('outside: ' + t.textContent);
    for (const [u, b] of boxes.slice(i + 1))
      if (meet(a, b))
        found.push(t.lastChild.textContent + ' on ' + u.lastChild.textContent);
    if (points.some(b => meet(a, b))) found.push('on a point: ' + t.textContent);
  });
}
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth) found.push('wider than its window');
document.body.setAttribute('data-crowded', JSON.stringify(found));
</script>"""


@dataclass(frozen=True)
class Opened:
    """What a browser made of a page: its document after rendering, console lines, and crowded texts.

    A page forbids itself the network; a request that it makes all the same is a line of the console.
    """

    document: str
    console: list[str]
    crowded: list[str]


def opened(page: str, folder: Path, width: int = 1280, dark: bool = False) -> Opened:
    """Renders ``page`` and looks at it."""
    assert page.count("default-src 'none'") == 1
    path = folder / "page.html"
    allowed = page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    path.write_text(allowed.replace("</body>", f"{_PROBE}</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"),
            "--proxy-server=http://127.0.0.1:9",  # nobody is there: what the browser itself asks for goes nowhere
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={width},1400",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    (crowded,) = re.findall(r'data-crowded="([^"]*)"', done.stdout)
    return Opened(done.stdout, console, json.loads(unescape(crowded)))
