"""An answer of the chat page: its words, boxes, counts and notices."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mm.grounding import Box, draw_boxes
from mm.pipeline import Pipeline
from mm.reply import Reply

from .common import finish_sentence, keep_picture, plain
from .conversation import Turn

NEAR_THE_END = 0.75  # part of the context from which on the page says how full it is
SHOWN_HEIGHT, LETTERS = 300, 13  # pixels: most that Gradio gives a picture in a chat, and letters of its labels there


def shown(pipe: Pipeline, reply: Reply, images: Sequence[Any], dropped: int, speed: str) -> list[Turn]:
    """An answer with its boxes and, folded up below it, counts, speeds and notices."""
    boxes = [box for box in reply.boxes if box.valid]
    text = reply.text.strip() if not boxes else _spoken(reply, boxes)
    turns: list[Turn] = [{"role": "assistant", "content": text or "(no text)"}]
    for index in sorted({box.image_index for box in boxes}):
        size = max(LETTERS, round(LETTERS * images[index].height / SHOWN_HEIGHT))
        picture = keep_picture(draw_boxes(images[index], boxes, image_index=index, font_size=size))
        turns.append({"role": "assistant", "content": {"path": picture, "alt_text": f"image {index + 1} with boxes"}})
    notes = [finish_sentence(reply), context_notice(reply.usage.total_tokens, pipe.context, dropped)]
    if reply.boxes:
        notes.append(box_table(reply.boxes))
    title = " · ".join([speed, *(["boxes"] if reply.boxes else []), *(["notice"] if any(notes[:2]) else [])])
    body = "\n\n".join(note for note in notes if note) or (
        f"{reply.usage.image_tokens:,} of the tokens in are images. The conversation uses {reply.usage.total_tokens:,} "
        f"of {pipe.context:,} tokens."
    )
    turns.append({"role": "assistant", "content": body, "metadata": {"title": title, "status": "done"}})
    return turns


def not_answered() -> Turn:
    """What stands for an answer that was stopped before it began."""
    return {"role": "assistant", "content": "There is no answer.", "metadata": {"title": "Stopped", "status": "done"}}


def as_data(reply: Reply) -> dict[str, Any]:
    """An answer for programs, with the names of docs/json.md."""
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": asdict(reply.usage),
        "boxes": [asdict(box) for box in reply.boxes],
    }


def _spoken(reply: Reply, boxes: Sequence[Box]) -> str:
    """The words of an answer that is made of boxes."""
    labels = ", ".join(dict.fromkeys(box.label for box in boxes if box.label))
    return f"Found {labels or 'it'}: {len(boxes)} {'box' if len(boxes) == 1 else 'boxes'}."


def box_table(boxes: Sequence[Box]) -> str:
    """Boxes as a Markdown table; what the model wrote is shown as text."""
    lines = ["| label | image | left, top, right, bottom (pixels) |", "| --- | --- | --- |"]
    for box in boxes:
        place = ", ".join(f"{value:.0f}" for value in box.xyxy) if box.xyxy else f"not valid: {box.reason}"
        lines.append(f"| {plain(box.label)} | {box.image_index + 1} | {plain(place)} |")
    return "\n".join(lines)


def context_notice(used: int, context: int, dropped: int) -> str:
    """What was left out of the prompt, and what will be next; empty while there is room."""
    said = []
    if dropped:
        what = "question and its answer were" if dropped == 1 else f"{dropped} questions and answers were"
        said.append(f"The conversation is longer than the context: the oldest {what} left out.")
    if used >= NEAR_THE_END * context:
        said.append(
            f"The conversation uses {used:,} of {context:,} tokens. When it is full, the oldest question goes first, "
            "with its images and its answer; a new conversation starts empty."
        )
    return " ".join(said)
