"""How the pages look, and what Gradio leaves to be named for screen readers."""

import gradio as gr

CSS = """
footer { display: none !important; }
button[aria-label="Share"], button[title="Share"] { display: none !important; }  /* would upload to another site */
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container > main { width: 100%; }
.app-top > .column { gap: 4px; }
.app-head h1 { margin: 0; font-size: 1.35rem; }
.app-about p { margin: 0; color: var(--body-text-color-subdued); }
/* What is asked, what comes of it, and further settings: beside each other, and in this order on a phone. */
@media (min-width: 800px) {
  .app-work { display: grid !important; grid-template: auto 1fr / minmax(0, 2fr) minmax(0, 3fr); align-items: start; }
  .app-work > :nth-child(2) { grid-area: 1 / 2 / span 2; }
}
/* Gradio shows a chosen circle white on white below the pointer, and the focus of a button not at all. */
input:checked:hover { background-color: var(--checkbox-background-color-selected) !important; }
button:focus-visible, [role="button"]:focus-visible, summary:focus-visible, a:focus-visible {
  outline: 2px solid var(--primary-500) !important; outline-offset: 2px;
}
body:not(.dark) [role="tab"][aria-selected="true"] { color: var(--primary-700); }
/* Pictures, words and counts of a chat are bubbles of their own: closer together, and the counts without a frame. */
.message-row.bubble { margin: 12px 20px 6px !important; }
.message-row:has(.thought-group) .message { background: none !important; border: 0 !important;
  box-shadow: none !important; padding: 0 !important; }
.message-row:has(.thought-group) .thought-group { margin: 0; }
.user-row:has(.image-container) + .message-buttons { display: none; }
.wrap:has(> .error) { display: none !important; }  /* a mistake is told in a sentence and hides nothing */
.app-gallery { min-height: 300px; }
.app-gallery .grid-wrap, .app-album .grid-wrap { max-height: none !important; padding-top: 34px; }
.app-gallery .grid-container { max-width: 66vh; margin: 0 auto; }
.app-album .grid-container { grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)) !important; }
"""

# Controls that Gradio leaves without a name for screen readers get one, whenever they appear.
NAMES = """
<script>
const names = [
    [".multimodal-textbox textarea", "Message"],
    [".submit-button", "Send"],
    [".stop-button", "Stop"],
    [".arrow > button", "Details"],
    ["button:has(> .image-frame)", "Show larger"],
];
const untranslated = {"common.upload": "Upload"};
function nameControls() {
    for (const [selector, name] of names)
        for (const part of document.querySelectorAll(selector))
            if (!part.getAttribute("aria-label")) part.setAttribute("aria-label", name);
    // A button inside another one is no stop of its own.
    for (const part of document.querySelectorAll("[role=button] button, button input")) part.tabIndex = -1;
    for (const [key, name] of Object.entries(untranslated))
        for (const attribute of ["aria-label", "title"])
            for (const part of document.querySelectorAll(`[${attribute}="${key}"]`)) part.setAttribute(attribute, name);
}
let planned = false;
new MutationObserver(() => {
    if (planned) return;
    planned = true;
    setTimeout(() => { planned = false; nameControls(); }, 100);
}).observe(document.documentElement, {childList: true, subtree: true});
</script>
"""


def theme() -> gr.themes.Base:
    """Fonts of the reader's own machine, so that none is fetched, and text of enough contrast (WCAG 2.2 AA: 4.5)."""
    base = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"],
    )
    return base.set(
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        input_placeholder_color="*neutral_500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
