"""A real browser, driven by the protocol of its developer tools over two pipes.

Messages are JSON, each ended by a NUL byte; the browser reads them from descriptor 3 and
writes them to 4. Source: Chrome DevTools Protocol, ``--remote-debugging-pipe``.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

_ANSWER_SECONDS = 120
_CONNECT = """
import os, sys
for given, wanted in zip(map(int, sys.argv[1:3]), (3, 4)):
    os.dup2(given, wanted)
    os.close(given)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes the browser, with two descriptors where it looks for them."""


def _far(number):
    """The same descriptor, far from 3 and 4."""
    moved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(number)
    return moved


class Chromium:
    """A headless browser with one tab; everything it started ends with it."""

    def __init__(self, program):
        self._program = program
        self._pending = b""
        self._number = 0
        self._session = None
        self.events = []

    def _start(self):
        to_browser, self._write = map(_far, os.pipe())
        self._read, from_browser = map(_far, os.pipe())
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _CONNECT,
                str(to_browser),
                str(from_browser),
                self._program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-extensions",
                "--disable-background-networking",
                "--disable-component-update",
                f"--user-data-dir={self._folder}",
                "--remote-debugging-pipe",
                "about:blank",
            ],
            pass_fds=(to_browser, from_browser),
            env={**os.environ, "HOME": self._folder, "XDG_CONFIG_HOME": self._folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)

    def __enter__(self):
        self._folder = tempfile.mkdtemp(prefix="zctrace-chromium-")
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        try:
            # Not the tab that it opens by itself: what that one has done before is unknown.
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        os.close(self._write)
        try:
            # It ends when its pipe does.
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        os.close(self._read)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method, **parameters):
        """Ask, and wait for the answer; what happens meanwhile goes to ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method, **parameters):
        """The next event of that name with those parameters, or one that has already come."""
        position = 0
        while True:
            for event in self.events[position:]:
                if event["method"] == method and parameters.items() <= event["params"].items():
                    return event
            position = len(self.events)
            self.events.append(self._next())

    def download(self, click, folder):
        """The path of the file that a click saves, once it is whole.

        The browser makes a file of that name before it has written any of it.
        """
        self.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(folder),
            eventsEnabled=True,
        )
        self.events.clear()
        self.evaluate(click)
        begun = self.wait_for("Browser.downloadWillBegin")["params"]
        self.wait_for("Browser.downloadProgress", guid=begun["guid"], state="completed")
        return folder / begun["suggestedFilename"]

    def _next(self):
        deadline = time.monotonic() + _ANSWER_SECONDS
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._read], [], [], deadline - time.monotonic())
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise RuntimeError("the browser does not answer")
            self._pending += chunk
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)

    def open(self, path, *, width=1280, height=900, scheme="light"):
        """Load a file, in a window so wide, by somebody who likes it light or dark."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media="", features=features)
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")

    def evaluate(self, expression, *, promise=False):
        """The value of JavaScript, run in the page; of a promise, what it promises."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=promise,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def pdf(self):
        answer = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(answer["data"])

    def screenshot(self):
        """The whole page as PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])
