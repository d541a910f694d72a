"""Opens an HTML report in headless Chromium, uses it as a reader would, and saves a screenshot.

usage: report_browser.py REPORT.html SCREENSHOT.png [--dark]

Drives chromedriver over its HTTP protocol; needs nothing but the standard library. Exits 0 when every check held, 1 with
the failed check on stderr, and 77 where chromium or chromedriver is missing.
"""

import base64
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

MAX_OPEN_MS = 2000
MAX_SCREENSHOT_BYTES = 300_000
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--window-size=1360,1500",
]


class Browser:
    def __init__(self, driver, chromium, profile, dark):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_until_up()
        flags = FLAGS + [f"--user-data-dir={profile}"] + (["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else [])
        options = {"binary": chromium, "args": flags}
        logging = {"browser": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logging}
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.base += "/session/" + session["sessionId"]

    def wait_until_up(self):
        for _ in range(100):
            try:
                if self.call("GET", "/status")["ready"]:
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("chromedriver did not start")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector):
        # Not under the header, which stays on top.
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{next(iter(found.values()))}/click", {})

    def type(self, selector, text):
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{next(iter(found.values()))}/value", {"text": text})

    def screenshot(self):
        return base64.b64decode(self.call("GET", "/screenshot"))

    def close(self):
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait()


def check(holds, claim):
    if not holds:
        raise AssertionError(claim)


def rows(browser, kind):
    return browser.run(f"return document.querySelectorAll('#graph tr.{kind}').length")


def expanded(browser, scope):
    return browser.run(f"return document.querySelector('[data-scope=\"{scope}\"]').getAttribute('aria-expanded')")


def use(browser, page, screenshot):
    started = time.monotonic()
    browser.call("POST", "/url", {"url": page})
    ready = browser.run("return document.documentElement.dataset.ready")
    wall_ms = (time.monotonic() - started) * 1000
    check(ready is not None, "the page becomes ready")
    check(float(ready) < MAX_OPEN_MS and wall_ms < MAX_OPEN_MS,
          f"opens in under {MAX_OPEN_MS} ms: took {ready} ms in the page, {wall_ms:.0f} ms in all")
    loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    check(loaded == [], f"loads nothing from elsewhere: {loaded}")
    check(rows(browser, "node") < 50, "folds are not rendered before they open")

    check(browser.run("return document.querySelector('#tabs [aria-current=true]').firstChild.textContent") == "coarse", "opens on the coarse graph")
    browser.click('[data-scope="level2"]')
    check(expanded(browser, "level2") == "true", "a click opens a fold")
    browser.click('[data-scope="level2.decoder"]')
    browser.click('[data-scope="level2.decoder.layer0"]')
    browser.click('[data-scope="level2.decoder.layer0.mlp"]')
    opened = rows(browser, "node")
    check(opened > 10, f"an open scope shows its nodes: {opened}")
    browser.click('[data-scope="level2.decoder.layer0"]')
    check(rows(browser, "node") < opened, "a second click folds it with everything inside")
    browser.run("window.scrollTo(0, 0)")
    save(browser, screenshot)

    browser.type("#search", "coarse sample")
    time.sleep(0.3)
    check(browser.run("return document.getElementById('results').textContent").startswith("No node"), "no sample is part of the coarse graph, and search says so")
    browser.run("document.getElementById('search').value = ''")
    browser.type("#search", "level1.decoder.layer1 gate_proj")
    time.sleep(0.3)
    hits = browser.run("return document.querySelectorAll('#results li').length")
    check(hits > 0, "search finds a weight by its name")
    browser.click("#results li button")
    target = browser.run("return document.querySelector('tr.target')?.textContent || ''")
    check("gate_proj" in target, f"a hit is shown in its place: {target!r}")

    browser.click("article:nth-of-type(2) .path button")
    check(browser.run("return !document.querySelector('.steps').hidden"), "a step of a declined path lists its nodes")
    before = browser.run("return document.documentElement.dataset.theme")
    browser.click("#theme")
    check(browser.run("return document.documentElement.dataset.theme") != before, "the theme switches")
    browser.call("POST", "/window/rect", {"width": 520, "height": 900})
    check(browser.run("return document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling on a narrow window")
    severe = [entry["message"] for entry in browser.call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
    check(severe == [], f"no errors on the console: {severe}")
    print(f"opened in {ready} ms in the page, {wall_ms:.0f} ms in all")


def save(browser, screenshot):
    picture = browser.screenshot()
    check(len(picture) < MAX_SCREENSHOT_BYTES, f"the screenshot stays under {MAX_SCREENSHOT_BYTES} bytes: {len(picture)}")
    pathlib.Path(screenshot).write_bytes(picture)


def main():
    report, screenshot = sys.argv[1:3]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        print("chromium or chromedriver is missing: apt-get install chromium chromium-driver", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(driver, chromium, profile, "--dark" in sys.argv)
        try:
            use(browser, pathlib.Path(report).resolve().as_uri(), screenshot)
        except AssertionError as failed:
            print(f"does not hold: {failed}", file=sys.stderr)
            return 1
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
