"""The apps in a real browser (Debian's Chromium through Playwright): what a person sees, and that no request leaves.

Screenshots of each app in light, dark and phone width go to tests/apps/out, which is not committed.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
OUT = Path(__file__).parent / "out"
RECEIPT = ROOT / "examples" / "receipt.png"
CHART = ROOT / "docs" / "nano-vl2" / "11-charts.png"
VIEWS = {"light": (1280, 900), "dark": (1280, 900), "phone": (390, 844)}
WAIT_MS = 30_000  # most for an answer, on a busy machine

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A visitor, whose every request stays on this machine."""
    view = getattr(request, "param", "light")
    width, height = VIEWS[view]
    made = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if view == "dark" else "light"
    )
    urls: list[str] = []
    made.on("request", lambda sent: urls.append(sent.url))
    yield made
    made.close()
    assert urls
    foreign = [url for url in urls if not url.startswith(("http://127.0.0.1:", "blob:", "data:"))]
    assert not foreign, foreign


def opened(context: BrowserContext, server: str, tab: str) -> Page:
    page = context.new_page()
    page.goto(server)
    page.get_by_role("tab", name=tab).click()
    return page


def ask(page: Page, question: str) -> None:
    page.locator("textarea[data-testid=textbox]:visible").first.fill(question)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("context", list(VIEWS), indirect=True)
def test_chat(context: BrowserContext, server: str, request: pytest.FixtureRequest) -> None:
    page = opened(context, server, "Chat")
    page.locator("input[type=file]").first.set_input_files(RECEIPT)
    expect(page.locator("img:visible").first).to_be_visible(timeout=WAIT_MS)
    ask(page, "What is the total?")
    expect(page.get_by_text("19.10", exact=True)).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("tokens in")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_role("button", name="Share")).to_have_count(0)
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=OUT / f"chat-{request.node.callspec.params['context']}.png", full_page=True)
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0, "the page is wider than the window"


@pytest.mark.parametrize("context", list(VIEWS), indirect=True)
def test_read(context: BrowserContext, server: str, request: pytest.FixtureRequest) -> None:
    page = opened(context, server, "OCR and charts")
    page.locator("input[type=file][accept*=pdf]").set_input_files(CHART)
    expect(page.get_by_text("3 x 3 tiles")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Read", exact=True).click()
    expect(page.get_by_text("1 page read")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("tab", name="Table and plot").click()
    expect(page.get_by_text("Walter").first).to_be_visible(timeout=WAIT_MS)
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=OUT / f"read-{request.node.callspec.params['context']}.png", full_page=True)
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0, "the page is wider than the window"


def test_a_mistake_is_a_sentence_in_the_page(context: BrowserContext, server: str) -> None:
    page = opened(context, server, "Chat")
    ask(page, "What is the total?")
    expect(page.get_by_text("trained with pictures only")).to_be_visible(timeout=WAIT_MS)
