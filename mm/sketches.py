"""A picture in the making, whichever way a model draws: with image codes, or by flow.

``mm.drawing`` hands sketches to the engine and paints those that are whole.

Letters: H W pixels down and across.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from mm.contracts import CancelToken, DrawingPrompt, FlowHead, ImageHead, LatentPainter
from mm.generation.engine import Engine
from mm.generation.flow_picture import FlowRow
from mm.generation.handle import Handle
from mm.generation.image import ImageRow
from mm.generation.vq import to_bytes
from mm.pictures import DEFAULT_STEPS, DrawOptions, Preview


class Sketch(Protocol):
    """One picture on its way; any thread may ask it."""

    @property
    def is_whole(self) -> bool:
        """Whether it has come to its end, and not been cancelled."""
        ...

    @property
    def num_done(self) -> int:
        """Codes or steps so far."""
        ...

    @property
    def num_steps(self) -> int:
        """Of the whole picture."""
        ...

    @property
    def codes(self) -> tuple[int, ...]:
        """The image codes so far, row by row; none where the model has no codes."""
        ...

    def start(
        self,
        engine: Engine,
        prompt: DrawingPrompt,
        guidance_scale: float,
        cancel: CancelToken,
        on_step: Callable[[], None] | None,
    ) -> Handle:
        """Hand it to the engine."""
        ...

    def pixels(self) -> Tensor:
        """The whole picture, (3, H, W) float32 about -1..1 on the CPU."""
        ...

    def preview(self) -> Preview:
        """What can be seen so far."""
        ...


class Sketcher(Protocol):
    """Makes the sketches of one model."""

    size: tuple[int, int]  # pixels down and across
    num_positions: int  # of the context that a picture takes behind its prompt

    def sketch(self, options: DrawOptions, generator: torch.Generator) -> Sketch:
        """A new one, with its own random numbers."""
        ...

    def warm_up(self) -> None:
        """Import and load what only the end of a picture needs, while the engine is at work."""
        ...


class CodeSketcher:
    """Pictures of image codes."""

    def __init__(self, head: ImageHead) -> None:
        self.head = head
        self.size = head.size
        self.num_positions = head.grid[0] * head.grid[1]

    def sketch(self, options: DrawOptions, generator: torch.Generator) -> Sketch:
        """A new picture."""
        row = ImageRow(options=options.sampling, num_codes=self.num_positions, generator=generator)
        return _CodeSketch(self.head, row)

    def warm_up(self) -> None:
        """Imports diffusers."""
        self.head.vq.decode(torch.zeros(1, 1, dtype=torch.int64), (1, 1))


class _CodeSketch:
    def __init__(self, head: ImageHead, row: ImageRow) -> None:
        self._head = head
        self._row = row
        self.num_steps = row.max_new_tokens

    @property
    def is_whole(self) -> bool:
        return self._row.finish_reason == "stop"

    @property
    def num_done(self) -> int:
        return len(self._row.tokens)

    @property
    def codes(self) -> tuple[int, ...]:
        return tuple(self._row.tokens)

    def start(
        self,
        engine: Engine,
        prompt: DrawingPrompt,
        guidance_scale: float,
        cancel: CancelToken,
        on_step: Callable[[], None] | None,
    ) -> Handle:
        return engine.draw(prompt, self._row, guidance_scale=guidance_scale, cancel=cancel, on_step=on_step)

    def pixels(self) -> Tensor:
        return self._head.vq.decode(torch.tensor([self._row.tokens]), self._head.grid)[0].float().cpu()

    def preview(self) -> Preview:
        down, across = self._head.grid
        codes = list(self._row.tokens)
        rows = len(codes) // across
        image = None
        if rows:
            pixels = self._head.vq.decode(torch.tensor([codes[: rows * across]]), (rows, across))
            image = Image.fromarray(to_bytes(pixels)[0])
        return Preview(image=image, rows=rows, num_rows=down)


class FlowSketcher:
    """Pictures by flow.

    Args:
        head: of the model.
        painter: the autoencoder of its latents.
    """

    def __init__(self, head: FlowHead, painter: LatentPainter) -> None:
        self.head = head
        self.painter = painter
        self.size = head.size
        self.num_positions = head.num_positions - 1  # the time takes the place of the prompt's last token

    def sketch(self, options: DrawOptions, generator: torch.Generator) -> Sketch:
        """A new picture."""
        steps = DEFAULT_STEPS if options.num_inference_steps is None else options.num_inference_steps
        return _FlowSketch(self.painter, FlowRow(self.head, num_steps=steps, generator=generator))

    def warm_up(self) -> None:
        """Loads the autoencoder."""
        self.painter.warm_up()


class _FlowSketch:
    codes: tuple[int, ...] = ()

    def __init__(self, painter: LatentPainter, row: FlowRow) -> None:
        self._painter = painter
        self._row = row
        self.num_steps = row.num_steps

    @property
    def is_whole(self) -> bool:
        return self._row.finish_reason == "stop"

    @property
    def num_done(self) -> int:
        return self._row.steps

    def start(
        self,
        engine: Engine,
        prompt: DrawingPrompt,
        guidance_scale: float,
        cancel: CancelToken,
        on_step: Callable[[], None] | None,
    ) -> Handle:
        return engine.draw_flow(prompt, self._row, guidance_scale=guidance_scale, cancel=cancel, on_step=on_step)

    def pixels(self) -> Tensor:
        return self._painter.decode(self._row.latents)[0].float().cpu()

    def preview(self) -> Preview:
        steps, latents = self._row.steps, self._row.estimate
        if latents is None:
            return Preview(image=None, rows=0, num_rows=self.num_steps, unit="step")
        image = Image.fromarray(to_bytes(self._painter.decode(latents))[0])
        return Preview(image=image, rows=steps, num_rows=self.num_steps, unit="step")
