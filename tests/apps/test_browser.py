"""The apps in a real browser (Debian's Chromium through Playwright): what a person sees, and that no request leaves.

Screenshots of each app in light, dark and phone width go to tests/apps/out, which is not committed.
"""

import base64
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from mm.drawn_file import Recipe
from tests.apps.test_hostile_requests import write_bomb

ROOT = Path(__file__).parents[2]
OUT = Path(__file__).parent / "out"
RECEIPT = ROOT / "examples" / "receipt.png"
CHART = ROOT / "examples" / "chart.png"
VIEWS = {"light": (1280, 900), "dark": (1280, 900), "phone": (390, 844)}
WAIT_MS = 90_000  # most for anything, on a busy machine

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a camera
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
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
    made.set_default_timeout(WAIT_MS)
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


def choose_model(page: Page, name: str) -> None:
    page.locator("input[aria-label=Model]:visible").click()
    page.get_by_role("option", name=name).click()
    expect(page.get_by_text(f"{name} · ")).to_be_visible(timeout=WAIT_MS)


def keep_screenshot(page: Page, name: str) -> None:
    """For people to look at; here only the width is checked."""
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=OUT / f"{name}.png", full_page=True)
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0, "the page is wider than the window"


PASTE = """(content) => {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "pasted.png", {type: "image/png"}));
    const box = document.querySelector("textarea[data-testid=textbox]");
    box.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
}"""
UNNAMED = """() => [...document.querySelectorAll("button, input, textarea, select, [role=tab], [role=button]")]
    .filter(part => part.checkVisibility({visibilityProperty: true, opacityProperty: true}))
    .filter(part => !(part.getAttribute("aria-label") || part.getAttribute("title") || part.innerText.trim()
        || part.closest("label")?.innerText.trim() || [...(part.labels || [])].some(label => label.innerText.trim())
        || part.getAttribute("aria-labelledby") || part.querySelector("img[alt]:not([alt=''])")))
    .map(part => part.outerHTML.slice(0, 200))"""


def expect_names(page: Page) -> None:
    """Every control that is shown has a name for screen readers."""
    page.wait_for_timeout(300)  # they are named soon after they appear
    unnamed = page.evaluate(UNNAMED)
    assert not unnamed, unnamed


@pytest.mark.parametrize("context", list(VIEWS), indirect=True)
def test_chat(context: BrowserContext, server: str, request: pytest.FixtureRequest) -> None:
    page = opened(context, server, "Chat")
    page.locator("input[type=file]").first.set_input_files(RECEIPT)
    expect(page.locator("img:visible").first).to_be_visible(timeout=WAIT_MS)
    ask(page, "What is the total?")
    expect(page.get_by_text("19.10", exact=True)).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("tokens in")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_role("button", name="Share")).to_have_count(0)
    expect_names(page)
    keep_screenshot(page, f"chat-{request.node.callspec.params['context']}")


@pytest.mark.parametrize("context", list(VIEWS), indirect=True)
def test_read(context: BrowserContext, server: str, request: pytest.FixtureRequest) -> None:
    page = opened(context, server, "OCR and charts")
    page.locator("input[type=file][accept*=pdf]").set_input_files(CHART)
    expect(page.get_by_text(re.compile(r"\d x \d tiles"))).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Read", exact=True).click()
    expect(page.get_by_text("1 page read")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("tab", name="Table and plot").click()
    expect(page.get_by_text("April").first).to_be_visible(timeout=WAIT_MS)
    expect_names(page)
    keep_screenshot(page, f"read-{request.node.callspec.params['context']}")


@pytest.mark.parametrize("context", list(VIEWS), indirect=True)
def test_draw(context: BrowserContext, server: str, request: pytest.FixtureRequest) -> None:
    page = opened(context, server, "Text to image")
    page.get_by_label("Prompt", exact=True).fill("a green square left of a red triangle")
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile(r"row [1-9]\d* of 16")).first).to_be_visible(timeout=WAIT_MS)  # it grows
    expect(page.get_by_text(re.compile(r"4 pictures in "))).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_role("button", name="Download PNG")).to_be_visible(timeout=WAIT_MS)
    expect_names(page)
    keep_screenshot(page, f"draw-{request.node.callspec.params['context']}")


def test_a_picture_is_downloaded_restored_and_asked_about(context: BrowserContext, server: str, tmp_path: Path) -> None:
    page = opened(context, server, "Text to image")
    page.get_by_label("Prompt", exact=True).fill("a large red circle on a white background")
    page.get_by_label("number input for Pictures").fill("1")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_text("1 picture in")).to_be_visible(timeout=WAIT_MS)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    recipe = Recipe.read(file)
    assert (recipe.prompt, recipe.model) == ("a large red circle on a white background", "nano-janus")
    assert file.name == f"a-large-red-circle-on-a-white-background-{recipe.seed}.png"
    with Image.open(file) as picture:
        red, green, blue = picture.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert red > green + 10 and red > blue + 10
    page.get_by_label("Prompt", exact=True).fill("something else")
    page.locator("input[type=file][accept='.png']").set_input_files(file)
    expect(page.get_by_text(f"Settings restored; seed {recipe.seed} is kept.")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(recipe.prompt)
    expect(page.get_by_label("Keep this seed")).to_be_checked()
    page.get_by_role("button", name="Ask about this picture").click()
    expect(page.get_by_role("tab", name="Chat")).to_have_attribute("aria-selected", "true", timeout=WAIT_MS)
    ask(page, "What color is the circle?")
    expect(page.get_by_text("tokens in")).to_be_visible(timeout=WAIT_MS)


def test_cancel_keeps_what_is_finished(context: BrowserContext, server: str) -> None:
    page = opened(context, server, "Text to image")
    page.get_by_label("Prompt", exact=True).fill("a red circle")
    choose_model(page, "toy-janus")  # quick, but nobody waits for 16 pictures of it
    page.get_by_label("number input for Pictures").fill("16")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_text(re.compile(r"row [1-9]\d* of 16")).first).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Stopped: ")).to_be_visible(timeout=WAIT_MS)


def test_a_closed_tab_ends_its_drawing(context: BrowserContext, server: str) -> None:
    def ended() -> int:
        return int(httpx.post(f"{server}/gradio_api/run/ended", json={"data": []}).json()["data"][0])

    page = opened(context, server, "Text to image")
    page.get_by_label("Prompt", exact=True).fill("a red circle")
    page.get_by_label("number input for Pictures").fill("16")
    before = ended()
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_text(re.compile(r"row [1-9]\d* of 16")).first).to_be_visible(timeout=WAIT_MS)
    assert ended() == before
    page.close()
    deadline = time.monotonic() + 10
    while ended() == before:
        assert time.monotonic() < deadline, "the drawing goes on after its tab is closed"
        time.sleep(0.1)


def test_the_camera_takes_a_picture(context: BrowserContext, server: str) -> None:
    page = opened(context, server, "OCR and charts")
    page.get_by_role("button", name="Camera and clipboard").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("[...document.querySelectorAll('video')].some(video => video.videoWidth > 0)")
    page.wait_for_timeout(300)
    page.get_by_role("button", name="capture photo").click()
    expect(page.get_by_text(re.compile(r"\d+ x \d+ pixels"))).to_be_visible(timeout=WAIT_MS)


def test_two_visitors_see_their_own(browser: Browser, server: str) -> None:
    first, second = (browser.new_context() for _ in range(2))
    one, other = opened(first, server, "Text to image"), opened(second, server, "Text to image")
    choose_model(one, "toy-janus")
    one.get_by_label("Prompt", exact=True).fill("a red circle")
    one.get_by_role("button", name="Draw", exact=True).click()
    expect(one.get_by_text("4 pictures in")).to_be_visible(timeout=WAIT_MS)
    expect(other.get_by_text("Describe a picture, then draw it.")).to_be_visible()
    expect(other.get_by_role("button", name="Download PNG")).to_have_count(0)
    for visitor in (first, second):
        visitor.close()


def conversation(page: Page) -> Locator:
    return page.get_by_label("chatbot conversation")


def test_a_mistake_is_a_sentence_and_gives_the_question_back(context: BrowserContext, server: str) -> None:
    page = opened(context, server, "Chat")
    ask(page, "What is the total?")
    expect(page.get_by_text("trained with pictures only")).to_be_visible(timeout=WAIT_MS)
    message = page.get_by_role("textbox", name="Message")
    expect(message).to_have_value("What is the total?")
    expect(message).to_be_enabled()
    page.locator("input[type=file]").first.set_input_files(RECEIPT)
    expect(page.locator("img:visible").first).to_be_visible(timeout=WAIT_MS)
    message.press("Enter")
    expect(conversation(page).get_by_text("19.10", exact=True)).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("tab", name="Text to image").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_text("The prompt is empty")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("Nothing was drawn.")).to_be_visible(timeout=WAIT_MS)


def test_edit_undo_and_reopen(context: BrowserContext, server: str) -> None:
    """An edited question keeps its picture, undo gives it back, and what is saved is opened with the keyboard."""
    page = opened(context, server, "Chat")
    page.evaluate(PASTE, base64.b64encode(RECEIPT.read_bytes()).decode())
    expect(page.locator("img:visible").first).to_be_visible(timeout=WAIT_MS)
    ask(page, "What is the total?")
    expect(conversation(page).get_by_text("tokens in")).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Edit", exact=True).click()
    conversation(page).locator("textarea").fill("What is the date?")
    conversation(page).get_by_role("button", name="Submit").click()
    expect(conversation(page).get_by_text("2026-03-14", exact=True)).to_be_visible(timeout=WAIT_MS)
    expect(conversation(page).get_by_text("19.10", exact=True)).to_have_count(0)
    expect(conversation(page).get_by_text("1,383 tokens in")).to_be_visible(timeout=WAIT_MS)
    saved = page.get_by_role("gridcell", name="What is the date?")
    expect(saved).to_be_visible(timeout=WAIT_MS)
    page.reload()
    expect(conversation(page).get_by_text("2026-03-14", exact=True)).to_have_count(0)
    saved.press("Enter")
    expect(conversation(page).get_by_text("2026-03-14", exact=True)).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("textbox", name="Message")).to_have_value("What is the date?")
    expect(page.locator(".thumbnail-item img")).to_be_visible()


def test_an_answer_is_tried_again(context: BrowserContext, server: str) -> None:
    page = opened(context, server, "Chat")
    page.locator("input[type=file]").first.set_input_files(RECEIPT)
    expect(page.locator("img:visible").first).to_be_visible(timeout=WAIT_MS)
    page.get_by_label("number input for Longest answer").fill("1")
    ask(page, "What is the total?")
    expect(conversation(page).get_by_text("tokens in, 1 out")).to_be_visible(timeout=WAIT_MS)
    page.get_by_label("number input for Longest answer").fill("64")
    page.get_by_role("button", name="Retry").click()
    expect(conversation(page).get_by_text("19.10", exact=True)).to_be_visible(timeout=WAIT_MS)  # its picture is there
    expect(conversation(page).get_by_text("tokens in, 1 out")).to_have_count(0)


def test_a_stopped_answer_shows_its_counts(context: BrowserContext, server: str) -> None:
    page = opened(context, server, "Chat")
    page.locator("input[type=file]").first.set_input_files(RECEIPT)
    expect(page.locator("img:visible").first).to_be_visible(timeout=WAIT_MS)
    choose_model(page, "endless")
    page.get_by_label("number input for Longest answer").fill("2500")
    ask(page, "Read all the text.")
    expect(conversation(page).locator(".bot").first).to_have_text(re.compile(r"\S"), timeout=WAIT_MS)
    # Not click(), which waits until the button stands still: on a busy machine, where text keeps coming, for long.
    page.locator(".stop-button:visible").dispatch_event("click")
    counts = conversation(page).get_by_text(re.compile(r"tokens in, \d+ out.* · notice"))
    expect(counts).to_be_visible(timeout=WAIT_MS)
    out = re.search(r"tokens in, (\d+) out", counts.inner_text())
    assert out and int(out[1]) < 2500
    expect(page.get_by_role("textbox", name="Message")).to_be_enabled()


def test_the_plot_is_that_of_the_page_read_last(context: BrowserContext, server: str) -> None:
    page = opened(context, server, "OCR and charts")
    page.get_by_role("tab", name="Table and plot").click()
    for file, bar in ((RECEIPT, "Bread"), (CHART, "April")):
        page.locator("input[type=file][accept*=pdf]").first.set_input_files(file)
        expect(page.get_by_text(re.compile(r"\d x \d tiles"))).to_be_visible(timeout=WAIT_MS)
        page.get_by_role("button", name="Read", exact=True).click()
        expect(page.locator(".vega-embed text", has_text=bar)).to_be_visible(timeout=WAIT_MS)
        page.get_by_role("button", name="Clear").locator("visible=true").click()


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("drawing.png", write(b"<svg/>"), "SVG drawing"),
        ("page.png", write(b"<html></html>"), "web page"),
        ("cut.pdf", write(b"%PDF-1.7 x"), "cannot be rendered"),
        ("bomb.pdf", lambda path: write_bomb(path, 4096), "cannot be rendered"),
        ("giant.png", Image.new("1", (20_000, 10_000)).save, "too large to open safely|the limit is 50,000,000"),
        ("heavy.png", write(bytes(3 * 2**20)), "exceed the maximum allowed size of 2"),
    ],
)
def test_a_bad_file_is_a_sentence_in_the_page(
    context: BrowserContext, server: str, tmp_path: Path, name: str, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / name)
    page = opened(context, server, "OCR and charts")
    page.locator("input[type=file][accept*=pdf]").set_input_files(tmp_path / name)
    expect(page.get_by_text(re.compile(message)).first).to_be_visible(timeout=WAIT_MS)


def test_an_answer_makes_no_browser_ask_another_server(browser: Browser, server: str) -> None:
    """Markdown may name a picture elsewhere: whoever can make a model repeat it would learn of it."""
    visitor = browser.new_context()
    visitor.set_default_timeout(WAIT_MS)
    page = visitor.new_page()
    page.goto(server)
    page.get_by_role("textbox", name="Message").wait_for()
    elsewhere = "http://example.com/x.png"
    with page.expect_event("requestfailed", lambda sent: sent.url == elsewhere, timeout=WAIT_MS) as lost:
        page.evaluate(f"document.body.append(Object.assign(new Image(), {{src: '{elsewhere}'}}))")
    assert lost.value.failure == "csp"
    visitor.close()


def test_the_keyboard_alone(context: BrowserContext, server: str) -> None:
    page = context.new_page()
    page.goto(server)
    tab = page.get_by_role("tab", name="Chat")
    tab.focus()
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )
        if page.evaluate("document.activeElement.matches('textarea[data-testid=textbox]')"):
            return
    raise AssertionError(f"the message cannot be reached: {seen}")
