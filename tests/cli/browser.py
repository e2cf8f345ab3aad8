"""A headless Chromium, driven over its DevTools pipe; and screenshots as arrays."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import struct
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

PATIENCE = 120  # seconds; only to tell an end from a hang, also on a busy machine


def find_chromium() -> str | None:
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


class Browser:
    """One tab. What a page logs, throws or asks the network for is kept in `events`."""

    def __init__(self, program: str) -> None:
        self.profile = tempfile.mkdtemp(prefix="tandem-chromium-")
        theirs_in, self.out = os.pipe()
        self.into, theirs_out = os.pipe()
        self.buffer = b""
        self.events: list[dict] = []
        self.numbers = itertools.count(1)
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
        # The protocol wants descriptors 3 and 4.
        shell = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", program, *words, "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for area in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{area}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)
        for _ in range(50):  # its children write a little longer
            shutil.rmtree(self.profile, ignore_errors=True)
            if not Path(self.profile).exists():
                break
            time.sleep(0.1)

    def _read(self) -> dict:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            if not select.select([self.into], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            chunk = os.read(self.into, 1 << 16)
            if not chunk:
                raise EOFError(f"Chromium ended with {self.process.wait()}")
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, **parameters: object) -> dict:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": self.session} if self.session else {})
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            got = self._read()
            if got.get("id") == number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']}")
                return got["result"]
            self.events.append(got)

    def open(self, page: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Shows a file with scripts switched off, and returns when it is loaded."""
        self.events.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=True)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self.said("Page.loadEventFired"):
            self.events.append(self._read())

    def said(self, method: str) -> list[dict]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def complaints(self) -> list[dict]:
        """What the page wrote to the console, as a script or as the browser about it."""
        return self.said("Runtime.consoleAPICalled") + self.said("Runtime.exceptionThrown") + self.said("Log.entryAdded")

    def requests(self) -> list[str]:
        return [event["request"]["url"] for event in self.said("Network.requestWillBeSent")]

    def value(self, expression: str) -> object:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """All of the page, as height × width × 3 bytes."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"])
        if path:
            path.write_bytes(png)
        return pixels(png)


def pixels(png: bytes) -> np.ndarray:
    """The pixels of an 8-bit RGB or RGBA PNG without interlacing."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data = 8, b""
    width = height = channels = 0
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", body)
            assert depth == 8 and colour in (2, 6) and interlace == 0
            channels = 3 if colour == 2 else 4
        elif kind == b"IDAT":
            data += body
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    out = np.zeros((height + 1, width + 1, channels), np.int64)  # a row and a column of zeros before the first
    for y in range(height):
        kind, row = rows[y, 0], rows[y, 1:].reshape(width, channels).astype(np.int64)
        above = out[y, 1:]
        if kind == 0:
            out[y + 1, 1:] = row
        elif kind == 1:
            out[y + 1, 1:] = np.cumsum(row, axis=0) % 256
        elif kind == 2:
            out[y + 1, 1:] = (row + above) % 256
        else:
            _filtered(kind, row, out[y], out[y + 1])
    return out[1:, 1:, :3].astype(np.uint8)


def _filtered(kind: int, row: np.ndarray, above: np.ndarray, out: np.ndarray) -> None:
    """The filters Average and Paeth, which need the pixel to the left."""
    for x in range(len(row)):
        left, up, corner = out[x], above[x + 1], above[x]
        if kind == 3:
            guess = (left + up) // 2
        else:
            to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
            guess = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
        out[x + 1] = (row[x] + guess) % 256
