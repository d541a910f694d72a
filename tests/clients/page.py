"""The built-in page in headless Chromium, used as a reader would: type, stream, look, stop, re-roll, compare, chat.

usage: page.py URL [--dark] [--screenshot PICTURE.png]

Exits 0 when every check held, 1 with the failed check on stderr, and 77 where chromium or chromedriver is missing.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
from report_browser import MAX_SCREENSHOT_BYTES, Browser, check  # noqa: E402

# The first request of a protocol loads its graphs, which takes long in an unoptimised build.
PATIENCE_S = 120
PROMPT = "Catherine was at the window, and saw her brother come across the garden with a letter in his hand"
CONTROL = "\ue009"
ESCAPE = "\ue00c"
RIGHT = "\ue014"
ENTER = "\ue007"

# Names of what can be operated that a screen reader would have no name for.
NAMELESS = """
return [...document.querySelectorAll('input, select, textarea, button, [role=button], [role=group]')].filter((one) =>
  !one.labels?.length && !one.getAttribute('aria-label') && !one.textContent.trim()).map((one) => one.outerHTML);
"""
# Contrast of text with its ground, the least over everything that has text.
CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
let least = [99, ''];
for (const one of document.querySelectorAll('body *')) {
  if (![...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
  if (one.disabled || !one.checkVisibility() || one.matches('.skip, option, noscript')) continue;
  let ground = one;
  while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
  const [a, b] = [light(parse(getComputedStyle(one).color)), light(parse(getComputedStyle(ground).backgroundColor))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < least[0]) least = [contrast, one.outerHTML.slice(0, 80)];
}
return least;
"""


def keys(browser, *pressed):
    actions = [{"type": "keyDown", "value": key} for key in pressed]
    actions += [{"type": "keyUp", "value": key} for key in reversed(pressed)]
    browser.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})


def until(browser, condition, claim):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if browser.run(f"return Boolean({condition})"):
            return
        time.sleep(0.03)
    said = browser.run("return document.getElementById('status').textContent + ' ' + document.getElementById('failure').textContent")
    raise AssertionError(f"{claim}: not within {PATIENCE_S} s; the page says: {said}")


def fill(browser, field, value):
    browser.run("const field = document.getElementById(arguments[0]); field.value = ''; field.focus()", field)
    if value:
        browser.type(f"#{field}", value)


def status(browser):
    return browser.run("return document.getElementById('status').textContent")


def words(browser, pane=0):
    script = "return [...document.querySelectorAll('article:not(.user)')[arguments[0]].querySelectorAll('.meta')].map((meta) => meta.textContent)"
    return browser.run(script, pane)


def mode(browser, name):
    browser.click(f"input[name=mode][value={name}]")


def opens(browser, url):
    browser.call("POST", "/url", {"url": url})
    until(browser, "document.getElementById('model').options.length", "the page finds the models")
    until(browser, "document.getElementById('state').textContent === 'ready'", "the page shows that the server is ready")
    loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    strange = [name for name in loaded if not name.startswith((url, "data:"))]
    check(strange == [], f"loads nothing from elsewhere: {strange}")


def writes(browser):
    fill(browser, "prompt", PROMPT)
    fill(browser, "max_tokens", "160")
    fill(browser, "top_k", "40")
    keys(browser, CONTROL, ENTER)
    until(browser, "document.querySelectorAll('.meta').length", "the first burst is shown")
    check(status(browser) == "Writing.", f"text is shown before the end: {status(browser)}")
    check(browser.run("return document.querySelector('.text').ariaBusy") == "true", "text that grows is said to be busy")
    until(browser, "document.getElementById('status').textContent.startsWith('Finished')", "the text ends")
    check("160 tokens" in status(browser), f"its length is told: {status(browser)}")
    metas = words(browser)
    check(len(metas) >= 3, f"meta-contexts are told apart: {len(metas)}")
    colours = browser.run("return new Set([...document.querySelectorAll('.meta')].map((meta) => getComputedStyle(meta).backgroundColor)).size")
    check(colours >= 3, f"each has a colour: {colours}")
    return metas


def looks(browser):
    browser.run("document.querySelectorAll('.token')[5].dispatchEvent(new PointerEvent('pointerenter'))")
    shown = browser.run("return document.querySelectorAll('#tip:not([hidden]) tr').length")
    check(shown >= 5, f"a token under the pointer shows its alternatives: {shown}")
    browser.run("document.querySelectorAll('.token')[5].dispatchEvent(new PointerEvent('pointerleave'))")
    check(browser.run("return document.getElementById('tip').hidden"), "and hides them again")


def rerolls(browser, metas):
    # By the keyboard alone: the second meta-context, Enter, then the button.
    browser.run("document.querySelector('.meta').focus()")
    keys(browser, RIGHT)
    keys(browser, ENTER)
    check(browser.run("return document.querySelectorAll('.meta')[1].ariaPressed") == "true", "an arrow and Enter choose a meta-context")
    rows = browser.run("return document.querySelectorAll('#chosen tbody tr').length")
    check(rows > 1, f"its tokens are listed: {rows}")
    browser.run("document.getElementById('reroll').focus()")
    keys(browser, ENTER)
    until(browser, "document.getElementById('status').textContent.startsWith('Meta-context 2 was drawn again')", "a chunk is drawn again")
    after = words(browser)
    check(after[1] != metas[1], "and is another")
    check(after[:1] + after[2:] == metas[:1] + metas[2:], "and nothing beside it changes")
    check(browser.run("return document.activeElement.id") == "reroll", "focus stays on the button")
    browser.click("#undo")
    check(words(browser) == metas, "undo brings it back")
    browser.click("#onwards")
    until(browser, "document.getElementById('status').textContent.startsWith('Finished')", "the text goes on from the chunk")
    after = words(browser)
    # The seed is another every time, and some draw an end.
    other = after[:1] == metas[:1] and after[1:2] != metas[1:2] and len(after) <= len(metas)
    check(other, f"from there on it is another, no longer than before: {after}")


def stops(browser):
    fill(browser, "max_tokens", "1500")
    browser.click("#go")
    until(browser, "document.querySelectorAll('.meta').length", "the first burst is shown")
    check(browser.run("return document.getElementById('running').textContent") is not None, "the load is shown")
    browser.run("document.getElementById('prompt').focus()")
    keys(browser, ESCAPE)
    until(browser, "document.getElementById('status').textContent.startsWith('Stopped')", "Escape stops it")
    before = words(browser)
    time.sleep(0.7)
    check(words(browser) == before, "nothing comes after the stop")
    check(browser.run("return document.getElementById('stop').disabled && !document.getElementById('go').disabled"), "and one can write again")
    until(browser, "document.getElementById('running').textContent === '0'", "the server ends what was stopped")


def compares(browser):
    mode(browser, "compare")
    fill(browser, "prompt", PROMPT)
    fill(browser, "max_tokens", "96")
    browser.click("#go")
    until(browser, "document.getElementById('status').textContent.startsWith('Finished')", "both end")
    titles = browser.run("return [...document.querySelectorAll('article h3')].map((title) => title.textContent)")
    check(titles == ["RecGen", "HierGen"], f"both protocols stand side by side: {titles}")
    check(words(browser, 0) and words(browser, 1), "both have text")


def samples(browser):
    mode(browser, "completion")
    fill(browser, "prompt", PROMPT)
    fill(browser, "n", "3")
    fill(browser, "max_tokens", "48")
    browser.click("#go")
    until(browser, "document.getElementById('status').textContent.startsWith('Finished')", "all samples end")
    texts = [words(browser, pane) for pane in range(3)]
    check(len({str(text) for text in texts}) == 3, "three samples are three texts")
    fill(browser, "n", "1")


def talks(browser):
    mode(browser, "chat")
    for turn in (1, 2):
        fill(browser, "prompt", f"Where was she in chapter {turn}?")
        fill(browser, "max_tokens", "48")
        browser.click("#go")
        until(browser, f"document.querySelectorAll('article:not(.user) footer').length === {turn} && "
                       "document.getElementById('status').textContent.startsWith('Finished')", "the answer ends")
    said = browser.run("return document.querySelectorAll('article').length")
    check(said == 4, f"the conversation stays: {said}")


def refuses(browser):
    mode(browser, "completion")
    fill(browser, "prompt", PROMPT)
    fill(browser, "max_tokens", "9999999")
    browser.click("#go")
    until(browser, "!document.getElementById('failure').hidden", "an error is shown")
    told = browser.run("return document.getElementById('failure').textContent")
    check("400" in told and "max_tokens" in told, f"it names the parameter: {told}")
    fill(browser, "max_tokens", "64")


def use(browser, url, picture):
    opens(browser, url)
    metas = writes(browser)
    looks(browser)
    rerolls(browser, metas)
    stops(browser)
    compares(browser)
    if picture:
        browser.call("POST", "/window/rect", {"width": 1360, "height": 1080})
        browser.run("document.querySelectorAll('article .meta')[1].click(); window.scrollTo(0, 0); document.activeElement.blur()")
        time.sleep(1.2)
        taken = browser.screenshot()
        check(len(taken) < MAX_SCREENSHOT_BYTES, f"the screenshot stays under {MAX_SCREENSHOT_BYTES} bytes: {len(taken)}")
        pathlib.Path(picture).write_bytes(taken)
    least, where = browser.run(CONTRAST)
    check(least >= 4.5, f"text has a contrast of 4.5 at least: {least:.2f} at {where}")
    check(browser.run(NAMELESS) == [], f"everything has a name: {browser.run(NAMELESS)}")
    samples(browser)
    talks(browser)
    severe = [entry["message"] for entry in browser.call("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]
    check(severe == [], f"no errors on the console: {severe}")
    refuses(browser)
    browser.call("POST", "/window/rect", {"width": 520, "height": 900})
    check(browser.run("return document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling on a narrow window")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--screenshot")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        print("chromium or chromedriver is missing: apt-get install chromium chromium-driver", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(driver, chromium, profile, arguments.dark)
        try:
            use(browser, arguments.url.rstrip("/") + "/", arguments.screenshot)
        except AssertionError as failed:
            print(f"does not hold: {failed}", file=sys.stderr)
            return 1
        finally:
            browser.close()
    print("the page works in", chromium)
    return 0


if __name__ == "__main__":
    sys.exit(main())
