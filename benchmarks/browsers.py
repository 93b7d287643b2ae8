"""Browsers without a window for the page's tests and benchmark: Chromium, Firefox and WebKitGTK.

Each is driven through selenium. Firefox needs no geckodriver: selenium's commands go to Firefox itself, in its own
protocol, Marionette, whose commands are WebDriver's under other names.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from support.errors import UserError

PROGRAMS = {  # that each browser needs
    "chromium": ("chromium", "chromedriver"),
    "firefox": ("firefox-esr",),
    "webkitgtk": ("WebKitWebDriver", "MiniBrowser", "Xvfb"),
}
# Debian keeps MiniBrowser out of the way of what people call.
PLACES = os.pathsep.join([os.environ.get("PATH", ""), *map(str, Path("/usr/lib").glob("*/webkit2gtk-4.*"))])
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
OFFLINE = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
FIREFOX_FLAGS = ("--headless", "--marionette", "--remote-allow-system-access", "--no-remote")
FIREFOX_PREFERENCES = {
    "marionette.port": 0,  # any free one
    "remote.prefs.recommended": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.proxy.type": 1,  # nothing listens there, so nothing reaches a network
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
}
START_SECONDS = 60
MARIONETTE = {  # the commands whose names differ by more than the prefix, by selenium's names
    "get": "Navigate",
    "refresh": "Refresh",
    "goBack": "Back",
    "goForward": "Forward",
    "findChildElement": "FindElementFromElement",
    "clickElement": "ElementClick",
    "clearElement": "ElementClear",
    "sendKeysToElement": "ElementSendKeys",
    "getCurrentUrl": "GetCurrentURL",
    "getElementAriaLabel": "GetComputedLabel",
    "w3cGetActiveElement": "GetActiveElement",
    "w3cExecuteScript": "ExecuteScript",
    "w3cExecuteScriptAsync": "ExecuteAsyncScript",
    "screenshot": "TakeScreenshot",
    "actions": "PerformActions",
    "clearActionState": "ReleaseActions",
    "isElementDisplayed": "IsElementDisplayed",
}
UNWRAPPED = ("findElements", "findChildElements", "newSession", "getElementRect", "getWindowRect", "setWindowRect")


def missing(name):
    """What is not installed of what a browser needs."""
    programs = [program for program in PROGRAMS[name] if shutil.which(program, path=PLACES) is None]
    return programs + ["selenium"] * (importlib.util.find_spec("selenium") is None)


@contextlib.contextmanager
def started(name, folder, preferences=None):
    """A selenium driver of a browser that reaches no network; its profile goes into a folder.

    Args:
        name: one of PROGRAMS.
        preferences: further preferences of Firefox, by their names.
    """
    start = {"chromium": chromium, "firefox": firefox, "webkitgtk": webkitgtk}[name]
    with start(Path(folder), *([preferences or {}] if name == "firefox" else [])) as driver:
        driver.set_script_timeout(120)
        yield driver


@contextlib.contextmanager
def chromium(folder):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", OFFLINE)
        yield driver
    finally:
        driver.quit()


@contextlib.contextmanager
def firefox(folder, preferences):
    from selenium.webdriver import FirefoxOptions
    from selenium.webdriver.remote.webdriver import WebDriver

    values = {**FIREFOX_PREFERENCES, **preferences}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in values.items()]
    (folder / "user.js").write_text("".join(lines))
    program = [shutil.which("firefox-esr"), *FIREFOX_FLAGS, "--profile", str(folder)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(program, env={**os.environ, "HOME": str(folder)}, **silent)
    try:
        connection = Marionette(wait_for_port(folder / "MarionetteActivePort"))
        yield WebDriver(command_executor=connection, options=FirefoxOptions())
    finally:
        process.terminate()
        process.wait()


def wait_for_port(path):
    """The port that Firefox writes into a file when it listens."""
    deadline = time.monotonic() + START_SECONDS
    while not (path.exists() and path.read_text()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Firefox does not start: there is no {path}")
        time.sleep(0.05)
    return int(path.read_text())


class Marionette:
    """What selenium needs of a connection: `execute`. A message is its length, a colon and JSON."""

    def __init__(self, port):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=180).makefile("rwb")
        self.count = 0
        self.is_privileged = False  # whether scripts run with the rights of Firefox itself
        self.receive()  # the greeting

    def receive(self):
        length = b""
        while not length.endswith(b":"):
            length += self.stream.read(1)
        return json.loads(self.stream.read(int(length[:-1])))

    def send(self, name, parameters):
        """The answer to a command of Marionette: an error or None, and a result."""
        self.count += 1
        message = json.dumps([0, self.count, name, parameters]).encode()
        self.stream.write(b"%d:%s" % (len(message), message))
        self.stream.flush()
        return self.receive()[2:]

    def execute(self, command, parameters):
        """The answer to a command of selenium, in the form that selenium expects."""
        parameters = {name: value for name, value in (parameters or {}).items() if name != "sessionId"}
        if command == "newSession":
            parameters = {}
        name = MARIONETTE.get(command, command[0].upper() + command[1:])
        if name in ("ExecuteScript", "ExecuteAsyncScript") and self.is_privileged:
            parameters["sandbox"] = "system"
        if name == "TakeScreenshot":
            parameters.setdefault("full", False)  # the window, as the other browsers do
        error, result = self.send(f"WebDriver:{name}", parameters)
        if error:
            return {"status": 500, "value": error}
        is_wrapped = command not in UNWRAPPED and isinstance(result, dict) and set(result) == {"value"}
        return {"value": result["value"] if is_wrapped else result}

    def close(self):
        """Selenium calls this at the end; Firefox is stopped as a process."""


def in_firefox(driver, script, *arguments):
    """The value of a script that runs with the rights of Firefox itself, where `gBrowser` is its window."""
    marionette = driver.command_executor
    marionette.send("Marionette:SetContext", {"value": "chrome"})
    marionette.is_privileged = True
    try:
        return driver.execute_script(script, *arguments)
    finally:
        marionette.is_privileged = False
        marionette.send("Marionette:SetContext", {"value": "content"})


def resize(driver, width, height, ratio=1):
    """Set the size of the page's window in CSS pixels, and how many pixels of the screen one of them has."""
    if driver.name == "firefox":
        script = """
            const [width, height, ratio] = arguments;
            const browser = window.gBrowser.selectedBrowser;
            browser.style.cssText = `width: ${width}px; height: ${height}px; flex: none`;
            browser.browsingContext.overrideDPPX = ratio;"""
        in_firefox(driver, script, width, height, ratio)
        return
    metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def emulate(driver, scheme="light", forced_colors=False, medium=""):
    """Set what the page's media queries see; the medium is empty for the screen, or print."""
    forced = "active" if forced_colors else "none"
    if driver.name == "firefox":
        script = """
            const context = window.gBrowser.selectedBrowser.browsingContext;
            [context.prefersColorSchemeOverride, context.forcedColorsOverride, context.mediumOverride] = arguments;"""
        in_firefox(driver, script, scheme, forced, medium)
        return
    features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "forced-colors", "value": forced}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": features})


@contextlib.contextmanager
def webkitgtk(folder):
    from selenium import webdriver

    display = f":{os.getpid() % 10_000 + 100}"
    screen = subprocess.Popen(["Xvfb", display, "-screen", "0", "1600x1200x24"], stderr=subprocess.DEVNULL)
    options = webdriver.WebKitGTKOptions()
    options.binary_location = shutil.which("MiniBrowser", path=PLACES)
    options.add_argument("--automation")
    environment = {**os.environ, "DISPLAY": display, "HOME": str(folder), "GDK_BACKEND": "x11"}
    environment["WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS"] = "1"  # root, as in a container, may not make a sandbox
    service = webdriver.WebKitGTKService(shutil.which("WebKitWebDriver"), env=environment)
    try:
        driver = webdriver.WebKitGTK(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()
    finally:
        screen.terminate()
        screen.wait()


def names(argument=None):
    """The browsers that are installed, or the one that is named."""
    chosen = [argument] if argument else [name for name in PROGRAMS if not missing(name)]
    absent = [f"{name} needs {', '.join(missing(name))}" for name in chosen if missing(name)]
    if absent or not chosen:
        raise UserError("; ".join(absent) or "there is no browser")
    return chosen
