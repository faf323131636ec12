"""A browser without a window: what a page shows, what it asks for, and what it complains of."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, Response, sync_playwright

import databases
import harness

CHROMIUM = "FEAST_REGISTRY_TEST_CHROMIUM"
SCREENSHOTS = "FEAST_REGISTRY_TEST_SCREENSHOTS"
PATIENCE = 30.0
# Requests often follow one another: an answer names what is asked for next.
QUIET = 0.15
OF_STATUS = re.compile("Failed to load resource: the server responded|RestApiError: REST API error: [0-9]{3} ")
BUSY = ".euiLoadingSpinner, .euiSkeletonText, .euiSkeletonLoading, [class*='euiLoadingSpinner']"
# What EUI puts between the cells of a table, for whoever copies it, and before it, some time later, for screen readers.
NOT_SEEN = re.compile("[\U00010600-\U0001077f\u2704\u21a6\u21b5]+|^This table contains .*$", re.MULTILINE)


def program() -> Path:
    """Chromium, or Google's Chrome."""
    if databases.is_left_out("chromium"):
        pytest.skip(f"this run does without chromium ({databases.WITHOUT})")
    path = Path(os.environ.get(CHROMIUM, ""))
    if not path.is_file():
        raise harness.SetupProblem(
            f"{CHROMIUM} names no program: run `cargo xtask test`, which finds or fetches Chromium, or list chromium in "
            f"{databases.WITHOUT}"
        )
    return path


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Containers have a /dev/shm that is too small for it.
        arguments = ["--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program(), args=arguments)
        yield browser
        browser.close()


def screenshots(otherwise: Path) -> Path:
    folder = Path(os.environ.get(SCREENSHOTS) or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Visitor:
    """Somebody who looks at the pages of one server in a window of their own."""

    def __init__(self, name: str, origin: str, browser: Browser, shots: Path, **options: Any) -> None:
        self.name, self.origin, self.shots = name, origin, shots
        size = {"width": 1400, "height": 900}
        context = browser.new_context(
            base_url=origin, viewport=size, locale="en-US", timezone_id="UTC", reduced_motion="reduce", **options
        )
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self._open: set[Request] = set()
        self._changed = time.monotonic()
        self.refused: set[str] = set()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._listen()

    def _listen(self) -> None:
        self.page.on("request", self._on_request)
        self.page.on("requestfinished", self._on_end)
        self.page.on("requestfailed", self._on_failure)
        self.page.on("response", self._on_response)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))

    def _on_request(self, request: Request) -> None:
        self._open.add(request)
        self.asked.append(f"{request.method} {self._path(request.url)}")
        self._changed = time.monotonic()

    def _on_end(self, request: Request) -> None:
        self._open.discard(request)
        self._changed = time.monotonic()

    def _on_failure(self, request: Request) -> None:
        self._on_end(request)
        # Whoever leaves a page gives up what it still waits for.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.method} {self._path(request.url)}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            path = self._path(response.url).partition("?")[0]
            self.refused.add(f"{response.status} {response.request.method} {path}")

    def _on_console(self, message: ConsoleMessage) -> None:
        # Of statuses `refused` tells more than the console does: the browser's own words, and those of Feast's pages, which come once
        # a page has asked some times more, seconds later.
        if message.type == "error" and not OF_STATUS.match(message.text):
            self.complaints.append(f"console: {message.text}")

    def _path(self, url: str) -> str:
        return url.removeprefix(self.origin)

    def forget(self) -> None:
        """What was refused, complained of and asked for until now is of no interest any more."""
        self.refused, self.complaints, self.asked = set(), [], []

    # --- going somewhere ---

    def load(self, path: str) -> None:
        """Has the browser load a page from the server."""
        answer = self.page.goto(path, wait_until="commit")
        assert answer and answer.ok, f"{self.name} at {path}: {answer and answer.status}"
        # What came until now was for the page before.
        self.forget()

    def visit(self, path: str) -> None:
        """Follows a link within the page that is there, which loads no page but what the new one shows."""
        # What was refused the UI asks for again, later: only a page that is gone does not.
        if self.refused or not self.page.url.startswith(self.origin):
            return self.load(path)
        self.forget()
        go = "path => { history.pushState({}, '', path); dispatchEvent(new PopStateEvent('popstate', {state: {}})) }"
        self.page.evaluate(go, path)

    def settle(self, *texts: str) -> Visitor:
        """Waits until these texts are there, and nothing is under way any more."""
        self.until(lambda: not self.missing(texts), lambda: f"shows no {self.missing(texts)}")
        self.until(self._is_quiet, lambda: f"still waits for {sorted(self._path(each.url) for each in self._open)}")
        return self

    def missing(self, texts: tuple[str, ...]) -> list[str]:
        shown = self.text()
        return [text for text in texts if text not in shown]

    def _is_quiet(self) -> bool:
        is_idle = not self._open and time.monotonic() - self._changed > QUIET
        return is_idle and self.page.locator(BUSY).count() == 0

    def until(self, is_so: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > deadline:
                self.shoot("failed")
                seen = f"{self.complaints} {sorted(self.refused)}\n{self.text()}"
                raise AssertionError(f"{self.name} at {self._path(self.page.url)} {otherwise()}; {seen}")
            # Not a sleep of ours: this one lets the browser's news come in.
            self.page.wait_for_timeout(20)

    # --- looking ---

    def text(self) -> str:
        """What the page shows beside the bars at its left and top, one piece of text a line."""
        try:
            # In one step: between two, the page may become another.
            shown = self.page.evaluate("() => (document.querySelector('main') ?? document.body)?.innerText ?? ''")
        except Error:
            # It does so just now.
            return ""
        shown = NOT_SEEN.sub("\n", shown).replace(self.origin, "ORIGIN")
        return "\n".join(line.strip() for line in shown.splitlines() if line.strip())

    def everything(self) -> str:
        return self.page.locator("body").inner_text()

    def shoot(self, name: str) -> Path:
        """A picture of the page."""
        path = self.shots / f"{re.sub('[^a-z0-9_-]+', '.', name.lower()).strip('.') or 'home'}.{self.name}.png"
        self.page.screenshot(path=path)
        return path

    def assert_content(self, refused: set[str] = frozenset(), complaints: str = "") -> None:
        """Nothing failed but what is named; `complaints` is what others may say, a regular expression."""
        assert self.refused == set(refused), f"{self.name} at {self.page.url} was refused {self.refused}"
        others = [each for each in self.complaints if not (complaints and re.match(complaints, each))]
        assert not others, f"{self.name} at {self.page.url}: {others}"
