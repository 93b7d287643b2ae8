"""Ten minutes of use of the reference run's page, in real browsers: its memory does not grow."""

import os
import random
import time
from pathlib import Path

import pytest
from page import Page, need
from processes import children

from benchmarks import browsers

REFERENCE = Path(__file__).parent.parent / "results" / "reference" / "explorer.html"
MINUTES = 10
SETTLED = 2  # minutes until everything has been used once
GROWTH_MB = 20  # Firefox's memory goes up and down by 35 MB from minute to minute, so the higher value counts
STROKES = 5


def family(pid):
    """The ids of the processes that a process has started, and of theirs."""
    own = children(pid)
    return own + [descendant for child in own for descendant in family(child)]


def memory_mb():
    """Memory of all browser processes that this one has started, each shared page counted once."""
    total = 0
    for pid in family(os.getpid()):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(rollup.split("Pss:")[1].split()[0])
    return total / 1024


def collect_garbage(driver):
    if driver.name == "firefox":
        browsers.in_firefox(driver, "Services.obs.notifyObservers(null, 'memory-pressure', 'heap-minimize')")
        time.sleep(1)
    else:
        driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        driver.get_log("performance")  # which chromedriver keeps until they are asked for


def use(page, rng):
    """What a visitor does in a quarter of a minute: images, draws, a drawing, the map, the classes, the film."""
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    page.driver.execute_script("explorer.resetView()")
    for _ in range(3):
        page.mouse_at_point(rng.choice(page.central_points()[:500])).click().perform()
        page.wait_for_terms()
        page.mouse().move_to_element_with_offset(page.element("disc"), rng.randint(-20, 20), 9).click().perform()
        page.wait_for_frame()
    pad = page.element("pad")
    for _ in range(STROKES):
        start = page.mouse().move_to_element_with_offset(pad, rng.randint(-40, 40), -30).click_and_hold()
        start.move_by_offset(rng.randint(-9, 9), 60).release().perform()
    page.wait_for_terms()
    origin = ScrollOrigin.from_element(page.element("map"))
    for amount in (-200, 150, -100):
        page.mouse().scroll_from_origin(origin, 0, amount).perform()
        page.wait_for_frame()
    classes = page.driver.find_elements("css selector", "#legend button")
    for _ in range(2):  # hides a class, and shows it again
        classes[3].click()
        page.wait_for_frame()
    page.press("epoch", "HOME")
    page.click("play")
    page.wait_until("document.getElementById('play').textContent === 'Play'")


@pytest.mark.long
@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_ten_minutes_of_use_leave_the_memory_flat(name, tmp_path):
    need(name)
    rng = random.Random(0)
    found = []
    with browsers.started(name, tmp_path) as driver:
        page = Page(driver)
        page.open(REFERENCE)
        start = time.monotonic()
        for minute in range(1, MINUTES + 1):
            uses = 0
            while time.monotonic() < start + 60 * minute:
                use(page, rng)
                uses += 1
            collect_garbage(driver)
            found.append(round(memory_mb()))
            print(f"{name}: after minute {minute}, {uses} times used: {found[-1]} MB", flush=True)
    assert max(found[SETTLED:]) < max(found[:SETTLED]) + GROWTH_MB, found
