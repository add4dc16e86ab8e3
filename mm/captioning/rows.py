"""What is written of an image: its text with all that it depends on, or the reason why it has none."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mm.captioning.log import Row
from mm.captioning.prepare import RefusedError

if TYPE_CHECKING:
    from mm.captioning.answers import Answer
    from mm.pipeline import Pipeline


@dataclass(frozen=True)
class Outcome:
    """An image that is done with: its number in this run, and its row, whose ``error`` is None where it has a text."""

    number: int
    row: Row


def origin(pipe: "Pipeline", revision: str | None) -> Row:
    """Whose answer it is, and when it was given.

    Args:
        pipe: the model.
        revision: as asked for; the commit of a model from the hub tells more.
    """
    folder = pipe.folder
    commit = folder.name if folder is not None and folder.parent.name == "snapshots" else revision
    return {"model": pipe.name, "revision": commit, "time": datetime.now(UTC).isoformat(timespec="seconds")}


def refused(number: int, identity: str, refusal: RefusedError, source: Row) -> Outcome:
    """An image that goes to the quarantine."""
    return Outcome(number, {"id": identity, **source, "error": f"{refusal.reason}: {refusal}"})


def answered(answer: "Answer", source: Row) -> Outcome:
    """An image with a text."""
    assert answer.row is not None
    inputs, options = answer.prepared.inputs, answer.row.options
    span = inputs.spans[0]
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "no_repeat_ngram_size")
    return Outcome(
        answer.number,
        {
            "id": answer.item.id,
            "text": answer.text,
            "prompt": answer.prepared.question,
            **source,
            "sampling": {
                "do_sample": options.samples,
                **{name: getattr(options, name) for name in names},
                "max_new_tokens": answer.row.max_new_tokens,
            },
            "seed": answer.seed,
            "finish_reason": answer.row.finish_reason,
            "prompt_tokens": inputs.num_tokens,
            "image_tokens": int(inputs.image_mask.sum()),
            "completion_tokens": len(answer.row.tokens),
            "width": span.width,
            "height": span.height,
            "seconds": round(answer.seconds, 3),
            "error": None,
        },
    )


def copied(row: Row, identity: str) -> Row:
    """The row of an image that has the content and the question of another one."""
    if row["error"] is not None:
        return {**row, "id": identity}
    return {**row, "id": identity, "seconds": 0.0, "copy_of": row["id"]}
