"""A headless Chromium driven through its own pipe: no driver program, no port, no package.

It is found on PATH, or where $FEDSYNTH_CHROMIUM says.
"""

import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
SECONDS = 60.0


def find_browser() -> str | None:
    """The program, or None where there is none."""
    given = os.environ.get("FEDSYNTH_CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


def find_axe() -> Path | None:
    """The script of axe-core: $FEDSYNTH_AXE, or where Node's packages lie ($NODE_PATH)."""
    folders = [Path(one) for one in os.environ.get("NODE_PATH", "").split(os.pathsep) if one]
    named = [Path(os.environ["FEDSYNTH_AXE"])] if "FEDSYNTH_AXE" in os.environ else []
    paths = [*named, *(folder / "axe-core" / "axe.min.js" for folder in folders)]
    return next((path for path in paths if path.is_file()), None)


class Browser:
    """One tab. `errors` are what the page wrote to the console as errors, raised, or failed to load."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._rest, self._session = 0, b"", ""
        self.errors: list[str] = []
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """One command of the browser's protocol and its answer."""
        self._number += 1
        wanted = self._number
        message = {"id": wanted, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            got = self._next()
            if got.get("id") == wanted:
                assert "error" not in got, got
                return got["result"]
        raise TimeoutError(method)

    def open(self, page: Path, *, width: int, height: int = 900) -> None:
        """Show a file at this width, as a phone does below 500 pixels, and wait until it stands."""
        self.errors.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Page.navigate", url=page.resolve().as_uri())
        until = time.monotonic() + SECONDS
        while self.ask("document.readyState") != "complete" or self.ask("location.href") == "about:blank":
            assert time.monotonic() < until
            time.sleep(0.05)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; what it raises is an error here too."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as it stands."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(shot["data"]))

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key down and up again."""
        given = {"key": key, "code": key, "windowsVirtualKeyCode": code, **({"text": text} if text else {})}
        self.call("Input.dispatchKeyEvent", type="keyDown", **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._answers, 2**16)
            if not part:
                raise EOFError("the browser ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        got: dict[str, Any] = json.loads(line)
        self._note(got.get("method", ""), got.get("params", {}))
        return got

    def _note(self, method: str, given: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(given["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.errors.append(str([one.get("value") for one in given["args"]]))
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.errors.append(given["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not given["request"]["url"].startswith(("file:", "data:")):
            self.errors.append(f"asked for {given['request']['url']}")


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """The browser with one tab, for the block."""
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    command = [program, *flags, f"--user-data-dir={profile}", "--no-first-run", "--disable-extensions"]

    def as_third_and_fourth() -> None:  # where the browser looks for its pipe
        os.dup2(to_browser, 13)
        os.dup2(from_browser, 14)
        os.dup2(13, 3)
        os.dup2(14, 4)

    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=as_third_and_fourth,
        close_fds=False,
    ) as process:
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Browser(commands, answers)
        finally:
            with suppress(OSError):
                os.close(commands)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            os.close(answers)
