"""A drawing on its way: the pictures grow in a thread of their own, and the event loop of the page is told."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from PIL import Image

from mm.drawing import DrawingProgress
from mm.drawn_file import Recipe
from mm.pictures import Drawings
from mm.pipeline import Pipeline
from mm.reply import CancelFlag

from .common import keep_picture

PREVIEW_S = 0.3  # about what a frame may take: where there are many pictures, each frame renews some of them


@dataclass(frozen=True)
class Frame:
    """How far a drawing is: a sentence, and (path, caption) of each picture."""

    text: str
    pictures: list[tuple[str, str]]


class Drawing:
    """Pictures on their way, in a thread of their own. ``frames`` while they come, then ``result``."""

    def __init__(self, pipe: Pipeline, recipe: Recipe) -> None:
        self.result = Drawings(images=[], pictures=(), cancelled=True)
        self._pipe = pipe
        self._recipe = recipe
        self._flag = CancelFlag()
        self._next_frame = 0.0
        self._pictures: list[tuple[str, str]] = []
        self._turn = 0  # whose picture is renewed next
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._frame: Frame | None = None
        self._ended = False
        self._failure: BaseException | None = None

    def cancel(self) -> None:
        """End it within a step; what is whole by then is the result."""
        self._flag.set()

    async def frames(self) -> AsyncIterator[Frame]:
        """The newest frame each time, until the drawing ends; raises what it failed with."""
        threading.Thread(target=self._draw, name="mm-draw", daemon=True).start()
        try:
            while not self._ended:
                await self._news.wait()
                self._news.clear()
                frame, self._frame = self._frame, None
                if frame is not None and not self._ended:
                    yield frame
            if self._failure is not None:
                raise self._failure
        finally:
            self.cancel()

    def _draw(self) -> None:
        recipe = self._recipe
        try:
            self.result = self._pipe.generate_images(
                recipe.prompt,
                num_images_per_prompt=recipe.number,
                guidance_scale=recipe.guidance_scale,
                temperature=recipe.temperature,
                top_p=1 if recipe.top_p is None else recipe.top_p,
                num_inference_steps=recipe.steps,
                seed=recipe.seed,
                negative_prompt=recipe.negative_prompt,
                best_of=recipe.best_of,
                callback_on_step=self._follow,
                cancel=self._flag,
            )
        except BaseException as error:  # raised again in the event loop
            self._failure = error
        self._tell(None)

    def _follow(self, at: DrawingProgress) -> None:
        """Called in the thread as codes come. Half of the time at most goes into frames."""
        began = time.monotonic()
        if began < self._next_frame:
            return
        if not self._pictures:
            self._pictures = [(self._kept(None), "")] * at.num_pictures
        for _ in range(at.num_pictures):
            self._pictures[self._turn] = self._preview(at, self._turn)
            self._turn = (self._turn + 1) % at.num_pictures
            if time.monotonic() - began > PREVIEW_S:
                break
        now = time.monotonic()
        self._next_frame = now + max(PREVIEW_S / 2, now - began)
        share = 100 * at.step // at.num_steps
        text = f"Drawing: {share} %, {at.finished} of {at.num_pictures} finished. Previews are approximate."
        self._tell(Frame(text, list(self._pictures)))

    def _preview(self, at: DrawingProgress, index: int) -> tuple[str, str]:
        """A picture so far, and how far it is."""
        preview = at.preview(index)
        caption = f"{preview.unit} {preview.rows} of {preview.num_rows}" if preview.approximate else "finished"
        return self._kept(preview.image), caption

    def _kept(self, part: Image.Image | None) -> str:
        """A picture of full height, clear below the rows that are there."""
        canvas = Image.new("RGBA", self._pipe.picture_size[::-1])
        if part is not None:
            canvas.paste(part)
        return keep_picture(canvas, "preview.webp")

    def _tell(self, frame: Frame | None) -> None:
        """Hand a frame, or the end, to the event loop."""

        def take() -> None:
            self._frame = frame
            self._ended = self._ended or frame is None
            self._news.set()

        try:
            self._loop.call_soon_threadsafe(take)
        except RuntimeError:  # the server has ended
            self._flag.set()
