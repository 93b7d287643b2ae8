"""How fast is the page of a run? python -m benchmarks.page results/reference/explorer.html [--browser chromium]

Opens the page in each of Chromium, Firefox and WebKitGTK that is installed, without a window, and prints medians in
milliseconds. Needs selenium, and the programs that browsers.py names.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks import browsers, run_benchmark
from support.errors import UserError

OPENINGS = 5
IMAGES = 40
FRAMES = 200
WIDTH, HEIGHT = 1440, 980
MARK = b'id="content"'  # of the script in which a page has its run

# Each is called with some arguments and a function that takes the result.
MEASURES = {
    "opening the page, until the first equation": """
        const [, done] = arguments;
        (function wait() {
          if (window.explorer && explorer.state.terms) done(performance.now());
          else setTimeout(wait, 5);
        })();""",
    "64 x 64 heat map of an image": """
        const [i, done] = arguments;
        const x = explorer.pixelsOf(i);
        const start = performance.now();
        explain(x, null);
        done(performance.now() - start);""",
    "refined heat map, from its image": """
        const [i, done] = arguments;
        const start = performance.now();
        explorer.select(i);
        (function wait() {
          if (explorer.state.posterior && explorer.state.posterior.isRefined) done(performance.now() - start);
          else setTimeout(wait, 5);
        })();""",
    "equation, from its image": """
        const [i, done] = arguments;
        const start = performance.now();
        explorer.select(i);
        (function wait() {
          if (explorer.state.terms) done(performance.now() - start);
          else setTimeout(wait, 5);
        })();""",
    "longest wait of a message while an equation is computed": """
        const [i, done] = arguments;
        const channel = new MessageChannel();
        let longest = 0;
        let sent = performance.now();
        channel.port1.onmessage = () => {
          longest = Math.max(longest, performance.now() - sent);
          if (explorer.state.terms) return done(longest);
          sent = performance.now();
          channel.port2.postMessage(null);
        };
        explorer.select(i);
        channel.port2.postMessage(null);""",
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("path", type=Path, help="an explorer.html")
    parser.add_argument("--browser", choices=browsers.PROGRAMS, help="default: every one that is installed")
    flags = parser.parse_args()
    if MARK not in flags.path.read_bytes():
        raise UserError(f"{flags.path} is no explorer.html")
    for browser in browsers.names(flags.browser):
        with tempfile.TemporaryDirectory() as folder, browsers.started(browser, folder) as driver:
            print(f"{browser} {driver.capabilities['browserVersion']}")
            driver.set_window_size(WIDTH, HEIGHT)
            measure(driver, flags.path)


def measure(driver, path):
    """Print the times of the page at a path in a browser."""
    for name, script in MEASURES.items():
        times = []
        for i in range(OPENINGS if name.startswith("opening") else IMAGES):
            if name.startswith("opening"):
                driver.get("about:blank")
                driver.get(path.resolve().as_uri())
            times.append(driver.execute_async_script(script, i))
        print(f"  {name:56s} {statistics.median(times):7.1f} ms, {min(times):7.1f} to {max(times):7.1f}")
    print(f"  {'frames per second while hovering':56s} {driver.execute_async_script(HOVER, FRAMES):7.1f}")


if __name__ == "__main__":
    run_benchmark("page.py", main)
