"""How well a model draws what a prompt says: held-out prompts, and a checker that looks at the pixels.

Beside every score stands that of the same pictures against other prompts of the same row, in an order that leaves none
in its place: what chance gives.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from mm.errors import OptionError
from mm.evaluation.held_out_prompts import CATEGORIES, PAIRS, WHOLE_SCENES, Prompt, category_prompts, scene_prompts
from mm.evaluation.metrics import Interval, wilson
from mm.evaluation.report import Answer, Report, Row
from mm.evaluation.scene_checker import Seen, look
from mm.evaluation.suites import Progress
from mm.evaluation.tasks import DRAWING
from mm.evaluation.wishes import Verdict, judge

TASK = DRAWING
ALL = "all six categories"
_ATTRIBUTES = ("background", "count", "shapes", "colours", "binding", "layout")


class Drawn(Protocol):
    """What an artist returns."""

    @property
    def images(self) -> object:
        """A list of one picture a prompt, in order."""
        ...


class Artist(Protocol):
    """Draws, as ``Pipeline`` does."""

    def generate_images(
        self,
        prompt: Sequence[str],
        *,
        guidance_scale: float | None,
        temperature: float | None,
        top_p: float | None,
        seed: int | None,
        batch_size: int,
    ) -> Drawn:
        """One picture of each prompt."""
        ...


def evaluate_drawing(
    artist: Artist,
    *,
    limit: int = 500,
    scene_limit: int = 100,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int = 0,
    batch_size: int = 8,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Draw every prompt once and count.

    Args:
        artist: the model, usually a ``Pipeline``.
        limit: prompts of the six categories together.
        scene_limit: prompts of each row of whole scenes, and of pairs that were never trained; 0 leaves them out.
        guidance_scale: of every picture; None takes the artist's own.
        temperature: likewise.
        top_p: likewise.
        seed: of the pictures; the prompts are always the same.
        batch_size: pictures that are drawn together.
        progress: called after every batch.

    Raises:
        OptionError: a limit or the batch size is out of its range.
        TaskError: the model cannot draw.
    """
    for name, value, least in (("limit", limit, 1), ("scene_limit", scene_limit, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise OptionError(f"{name} is {value}; expected {least} or more")
    prompts = [*category_prompts(limit), *scene_prompts(scene_limit)]
    seen: list[Seen] = []
    for first in range(0, len(prompts), batch_size):
        batch = [prompt.text for prompt in prompts[first : first + batch_size]]
        drawn = artist.generate_images(
            batch,
            guidance_scale=guidance_scale,
            temperature=temperature,
            top_p=top_p,
            seed=seed + first,
            batch_size=batch_size,
        )
        images = drawn.images
        assert isinstance(images, list), "PIL pictures are the default"
        seen += [look(image) for image in images]
        if progress is not None:
            progress(Progress(len(seen), len(prompts), TASK))
    settings = {
        "tasks": [TASK],
        "limit": limit,
        "scene_limit": scene_limit,
        "guidance_scale": guidance_scale,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "control": "other prompts",
    }
    return report_of(prompts, seen, settings)


def report_of(prompts: Sequence[Prompt], seen: Sequence[Seen], settings: dict[str, object]) -> Report:
    """The table of some prompts and what is seen in the picture of each."""
    verdicts = [judge(one, prompt.wish) for one, prompt in zip(seen, prompts, strict=True)]
    others = [judge(one, prompts[other].wish) for one, other in zip(seen, _shuffled(prompts), strict=True)]
    places = {row: [i for i, prompt in enumerate(prompts) if prompt.row == row] for row in (*CATEGORIES, *_MORE)}
    rows = [Row(TASK, ALL, *_scores([i for row in CATEGORIES for i in places[row]], verdicts, others))]
    rows += [Row(TASK, row, *_scores(found, verdicts, others)) for row, found in places.items() if found]
    every = [i for row in CATEGORIES for i in places[row]]
    for name in _ATTRIBUTES:
        pairs = [_share([getattr(part[i], name) for i in every]) for part in (verdicts, others)]
        rows.append(Row(TASK, f"{name}, of all six", *pairs))
    answers = [
        Answer(TASK, i, prompt.row, prompt.text, prompt.text, describe(one), control, "picture", "share", v.right, 1)
        for control, part in ((False, verdicts), (True, others))
        for i, (prompt, one, v) in enumerate(zip(prompts, seen, part, strict=True))
    ]
    return Report(tuple(rows), settings, "not asked for", tuple(answers))


def describe(seen: Seen) -> str:
    """What the checker saw, for reports: "red circle, blob on yellow"."""
    names = [f"{piece.colour} {piece.shape or 'blob'}" for piece in seen.pieces]
    return f"{', '.join(sorted(names)) or 'nothing'} on {seen.background}"


_MORE = (*WHOLE_SCENES, PAIRS)


def _shuffled(prompts: Sequence[Prompt]) -> list[int]:
    """For every prompt the number of another one of its row; its own where it is alone."""
    rng = np.random.default_rng(0)
    other = list(range(len(prompts)))
    for row in dict.fromkeys(prompt.row for prompt in prompts):
        order = rng.permutation([i for i, prompt in enumerate(prompts) if prompt.row == row])
        for one, following in zip(order, np.roll(order, 1), strict=True):
            other[int(one)] = int(following)
    return other


def _scores(
    places: Sequence[int], verdicts: Sequence[Verdict], others: Sequence[Verdict]
) -> tuple[Interval | None, Interval | None]:
    return _share([verdicts[i].right for i in places]), _share([others[i].right for i in places])


def _share(values: Sequence[bool]) -> Interval | None:
    return wilson(sum(values), len(values)) if values else None
