"""How fast is the page of a run? python -m benchmarks.page results/reference/explorer.html

Opens the page in a Chromium without a window and prints medians over images, in milliseconds. Needs selenium, chromium
and chromedriver.
"""

import argparse
import shutil
import statistics
import sys
from pathlib import Path

from selenium import webdriver

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu")
IMAGES = 40
FRAMES = 200

# Before the page's scripts: when the page can be used, and the longest of the pieces of work beside the frames.
WATCH = """
window.usable = 0;
new MutationObserver((_, observer) => {
  if (!('ready' in document.documentElement.dataset)) return;
  window.usable = performance.now();
  observer.disconnect();
}).observe(document, { attributeFilter: ["data-ready"], subtree: true });
window.longest = 0;
const later = window.setTimeout;
window.setTimeout = (task, delay) => later(() => {
  const start = performance.now();
  task();
  window.longest = Math.max(window.longest, performance.now() - start);
}, delay);
"""

# Each ends by calling its last argument with a time.
MEASURES = {
    "opening the page, until it can be used": """
        const done = arguments[1];
        later(function wait() {
          if (usable) done(usable);
          else later(wait, 5);
        });""",
    "opening the page, until the first equation": """
        const done = arguments[1];
        later(function wait() {
          if (state.terms) done(performance.now());
          else later(wait, 5);
        });""",
    "64 x 64 heat map of an image": """
        const done = arguments[1];
        const x = pixelsOf(arguments[0]);
        const start = performance.now();
        explain(x, null);
        done(performance.now() - start);""",
    "the map drawn": """
        const done = arguments[1];
        const start = performance.now();
        const context = fitCanvas($("map"), ...state.size);
        for (const draw of LAYERS) draw(context);
        done(performance.now() - start);""",
    "refined heat map, from its image": """
        const done = arguments[1];
        const start = performance.now();
        select(arguments[0]);
        later(function wait() {
          if (state.posterior && state.posterior.isRefined) done(performance.now() - start);
          else later(wait, 5);
        });""",
    "equation, from its image": """
        const done = arguments[1];
        const start = performance.now();
        select(arguments[0]);
        later(function wait() {
          if (state.terms) done(performance.now() - start);
          else later(wait, 5);
        });""",
}
HOVER = """
    const [frames, done] = arguments;
    const start = performance.now();
    let n = 0;
    requestAnimationFrame(function frame() {
      moveTo([2 * Math.sin(n / 9), 2 * Math.cos(n / 7)]);
      if (n++ < frames) requestAnimationFrame(frame);
      else done((1000 * frames) / (performance.now() - start));
    });
"""


def main(path):
    """Print the times of the page at a path."""
    chromium, chromedriver = map(shutil.which, ("chromium", "chromedriver"))
    if not (chromium and chromedriver and path.is_file()):
        sys.exit(f"page.py: error: it needs chromium and chromedriver on the PATH, and the page {path}")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        measure(driver, path)
    finally:
        driver.quit()


def measure(driver, path):
    """Print the times of the page at a path in a browser."""
    driver.set_script_timeout(60)
    size = {"width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    for name, script in MEASURES.items():
        times = []
        for i in range(5 if name.startswith("opening") else IMAGES):
            if name.startswith("opening"):
                driver.get(path.resolve().as_uri())
            times.append(driver.execute_async_script(script, i))
        print(f"{name:45s} {statistics.median(times):7.1f} ms, {min(times):7.1f} to {max(times):7.1f}")
    print(f"{'longest piece of work beside the frames':45s} {driver.execute_script('return longest'):7.1f} ms")
    print(f"{'frames per second while hovering':45s} {driver.execute_async_script(HOVER, FRAMES):7.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="an explorer.html")
    main(parser.parse_args().path)
