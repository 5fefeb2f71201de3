"""Debian's chromium, driven headless by WebDriver's own protocol: JSON over HTTP, no package.

`chromedriver` speaks W3C WebDriver and, below `goog/cdp`, the browser's own protocol.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which the standard hands out an element."""
STARTED = re.compile(r"started successfully on port (\d+)")


def needed(name: str) -> str:
    """The program's path; skips where there is none, and fails in CI, which installs it."""
    path = shutil.which(name)
    if path is None:
        reason = f"needs {name}: `make browser` installs Debian's chromium (as root)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class Browser:
    """One headless browser; a context manager.

    Args:
        profile: an empty folder of its own.
    """

    def __init__(self, profile: Path) -> None:
        chromium = needed("chromium")
        self.driver = subprocess.Popen(
            [needed("chromedriver"), "--port=0"], stdout=subprocess.PIPE, text=True
        )
        assert self.driver.stdout is not None
        found = next(filter(None, map(STARTED.search, self.driver.stdout)), None)
        assert found is not None, "chromedriver did not start"
        self.address = f"http://127.0.0.1:{found[1]}"
        # no sandbox: CI runs as root in a container; the pages are our own
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--hide-scrollbars", f"--user-data-dir={profile}"),
        ]
        asked = {
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        try:
            answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": asked}})
        except BaseException:
            self.driver.kill()
            raise
        self.session = f"/session/{answer['sessionId']}"

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            self._call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait(10)
            assert self.driver.stdout is not None
            self.driver.stdout.close()

    def open(
        self, page: Path, *, dark: bool = False, width: int = 1280, javascript: bool = True
    ) -> None:
        """Load the file as a machine without a network sees it."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])
        self.cdp("Emulation.setScriptExecutionDisabled", value=not javascript)
        self.cdp("Network.enable")
        nothing = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.cdp("Network.emulateNetworkConditions", offline=True, **nothing)
        self.console()
        self._post("/url", {"url": page.resolve().as_uri()})

    def visit(self, address: str) -> None:
        """Load what a server of this machine sends."""
        self.console()
        self._post("/url", {"url": address})

    def console(self) -> list[str]:
        """What the console has said since it was last asked: errors, refusals, failed requests."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that the body of a function returns in the page."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css: str) -> list[str]:
        """References to elements, in document order."""
        found = self._post("/elements", {"using": "css selector", "value": css})
        return [each[ELEMENT] for each in found]

    def click(self, element: str) -> None:
        self._post(f"/element/{element}/click", {})

    def type(self, element: str, text: str) -> None:
        """Keys as a person presses them, into what has the focus then."""
        self._post(f"/element/{element}/value", {"text": text})

    def clear(self, element: str) -> None:
        self._post(f"/element/{element}/clear", {})

    def text(self, element: str) -> str:
        """What is rendered of an element: hidden text is not."""
        return self._call("GET", f"{self.session}/element/{element}/text")

    def shown(self, element: str) -> bool:
        return self._call("GET", f"{self.session}/element/{element}/displayed")

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """A PNG of the window, or of the whole page."""
        asked = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = "return [document.documentElement.scrollWidth, document.body.scrollHeight]"
            width, height = self.run(size)
            asked["clip"] = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        path.write_bytes(base64.b64decode(self.cdp("Page.captureScreenshot", **asked)["data"]))
        return path

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the browser's own protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", self.session + path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read().decode()) from None
