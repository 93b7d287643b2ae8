"""The explorer page in a browser, as tests use it. REQUIRE_BROWSER=1 makes a missing browser a failure."""

import json
import os
import time

import imageio.v3 as imageio
import numpy as np
import pytest

from benchmarks import browsers

PATIENCE = 60  # seconds until a condition counts as never true
MOUSE_MS = 20  # a mouse moves for so long


class Page:
    """An explorer.html in a browser. Elements are named by their id."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path):
        """Open a page, wide and in the light scheme, and wait until it is ready."""
        self.resize(1440, 900)
        browsers.emulate(self.driver)
        self.driver.get("about:blank")
        self.forget()
        self.driver.get(path.as_uri())
        self.wait_until("document.documentElement.dataset.ready !== undefined")
        self.driver.execute_script("explorer.resetView()")

    def forget(self):
        """Forget what the console and the network have seen."""
        if self.driver.name == "firefox":
            browsers.in_firefox(self.driver, "Services.console.reset()")
        else:
            self.driver.get_log("performance")
            self.driver.get_log("browser")

    def check_silence(self):
        """Assert that the console is empty, and that nothing was asked of a network. Firefox has none to ask."""
        if self.driver.name == "firefox":
            messages = "return Services.console.getMessageArray().map((message) => message.message)"
            texts = [text for text in browsers.in_firefox(self.driver, messages) if "explorer.html" in text]
            assert texts == [], texts
            return
        assert self.driver.get_log("browser") == []
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"]["request"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert [request["url"] for request in sent if not request["url"].startswith(("file:", "data:"))] == []

    def resize(self, width, height, ratio=1):
        """Set the size of the window in CSS pixels, and how many pixels of the screen one of them has."""
        browsers.resize(self.driver, width, height, ratio)
        self.wait_until(f"innerWidth === {width}")

    def evaluate(self, expression, *arguments):
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {expression}", *arguments)

    def state(self, name):
        """A field of the page's state."""
        return self.evaluate(f"explorer.state.{name}")

    def wait_until(self, condition):
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.02)

    def wait_for_terms(self):
        """Wait until the equation has its numbers."""
        self.wait_until("explorer.state.terms !== null")

    def wait_for_frame(self):
        """Wait until everything is drawn that follows from the state."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def wait_for_rest(self):
        """Wait until the view has stood still for a second."""
        before = None
        while before != self.state("view"):
            before = self.state("view")
            self.wait_for_frame()
            time.sleep(1)

    def map_color(self, z):
        """Mean red, green and blue around z on the map."""
        self.wait_for_frame()
        shot = imageio.imread(self.driver.get_screenshot_as_png(), extension=".png")
        x, y = self.evaluate("explorer.toScreen(arguments[0])", z)
        corner = self.evaluate("document.getElementById('map').getBoundingClientRect()")
        row, column = round(corner["y"] + y), round(corner["x"] + x)
        return shot[row - 12 : row + 13, column - 12 : column + 13, :3].mean((0, 1))

    def element(self, name):
        return self.driver.find_element("id", name)

    def text(self, name):
        return self.element(name).text

    def click(self, name):
        self.element(name).click()

    def press(self, name, *keys):
        """Press keys at an element; each is a character or one of selenium's names."""
        from selenium.webdriver.common.keys import Keys

        self.element(name).send_keys(*(getattr(Keys, key, key) for key in keys))

    def press_anywhere(self, key):
        """Press a key where the focus is."""
        from selenium.webdriver.common.keys import Keys

        self.mouse().send_keys(getattr(Keys, key)).perform()

    def mouse(self):
        """A chain of mouse actions."""
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver, MOUSE_MS)

    def mouse_at_point(self, i):
        """A chain of mouse actions that begins at test image i on the map."""
        x, y = self.evaluate("explorer.toScreen(explorer.points[arguments[0]])", i)
        element = self.element("map")
        size = element.size
        return self.mouse().move_to_element_with_offset(element, x - size["width"] / 2, y - size["height"] / 2)

    def touch(self, *paths):
        """Fingers that each go down at the first [x, y] of a path, move to the second and go up."""
        fingers = []
        for i, (start, end) in enumerate(paths):
            moves = [{"type": "pointerMove", "x": round(x), "y": round(y)} for x, y in (start, end)]
            moves[1]["duration"] = MOUSE_MS
            moves.insert(1, {"type": "pointerDown", "button": 0})
            kind = {"type": "pointer", "id": f"finger{i}", "parameters": {"pointerType": "touch"}}
            fingers.append({**kind, "actions": [*moves, {"type": "pointerUp", "button": 0}]})
        self.driver.execute("actions", {"actions": fingers})

    def tap(self, element):
        """Touch an element in its middle."""
        rect = element.rect
        place = (rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 2)
        self.touch([place, place])

    def central_points(self):
        """The numbers of the test images, from the middle of the map outwards."""
        return np.linalg.norm(self.evaluate("explorer.points"), axis=1).argsort().tolist()


def need(name):
    """Skip the test if a browser is not installed."""
    missing = browsers.missing(name)
    if missing:
        assert not os.environ.get("REQUIRE_BROWSER"), f"not installed: {missing}"
        pytest.skip(f"not installed: {missing}")
