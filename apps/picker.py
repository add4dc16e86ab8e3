"""The top of a page: its title, and the list of models with what each needs before it is loaded."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr

from mm.errors import OptionError
from mm.pipeline import Pipeline

from .common import sentences
from .models import Models, Task

# A model that takes long keeps other models waiting, and no other thread of the server.
_LOADER = ThreadPoolExecutor(1, thread_name_prefix="mm-load")


class Picker:
    """The top of a page: its title, the model, and what the model needs before it is loaded.

    Made inside a page's blocks. ``model`` is an input of every endpoint of the page.

    Args:
        models: of the server.
        task: of the page.
        title: of the page.
    """

    def __init__(self, models: Models, task: Task, title: str) -> None:
        self._models = models
        self._task = task
        labels, label = models.labels(task), models.default(task)
        with gr.Row(equal_height=False, elem_classes="app-top"):
            with gr.Column(scale=3, min_width=260):
                gr.Markdown(f"# {title}", elem_classes="app-head")
                self.about = gr.Markdown(self._about(label), elem_classes="app-about")
            with gr.Column(scale=1, min_width=260):
                self.model = gr.Dropdown(labels, value=label, label="Model", visible=len(labels) > 0, filterable=False)
                self.button = gr.Button("Load", variant="primary", visible=self._waits(label))

    @property
    def pipe(self) -> Pipeline | None:
        """The model that the page starts with; None until it is loaded."""
        label = self._models.default(self._task)
        return self._models.get(label, self._task) if self._models.is_loaded(label) else None

    def _waits(self, label: str | None) -> bool:
        return label is not None and not self._models.is_loaded(label)

    def _about(self, label: str | None) -> str:
        lacking = self._models.lacking(self._task)
        if label is None:
            return lacking
        if self._models.is_loaded(label):
            said = f"{label} · {self._models.get(label, self._task).context:,} tokens of context"
        else:
            said = f"{label} is not loaded: {self._models.needs(label)} Press Load to use it."
        return f"{lacking}\n\n{said}" if lacking else said

    def wire(
        self, outputs: Sequence[gr.components.Component], fit: Callable[[Pipeline, bool], Sequence[Any]], api_name: str
    ) -> None:
        """Connect the list and the button; call it at the end of the page.

        Args:
            outputs: further components that depend on the model.
            fit: their updates for a loaded model, and whether the visitor has just chosen it: only then values that are
                set already give way to the model's defaults.
            api_name: of the endpoint that loads a model.
        """
        models, task = self._models, self._task

        def fitted(label: str | None, chosen: bool) -> list[Any]:
            loaded = models.is_loaded(label)
            return list(fit(models.get(label, task), chosen)) if loaded else [gr.skip() for _ in outputs]

        def state(label: str | None, chosen: bool) -> list[Any]:
            return [self._about(label), gr.update(visible=self._waits(label)), *fitted(label, chosen)]

        async def look(model: str | None) -> list[Any]:
            with sentences():
                return await asyncio.to_thread(state, model, False)

        async def choose(model: str | None) -> list[Any]:
            with sentences():
                return await asyncio.to_thread(state, model, True)

        async def load(model: str | None) -> AsyncIterator[list[Any]]:
            """Load a model of the list.

            Args:
                model: its name in the list.
            """
            with sentences():
                if model not in models.labels(task):
                    raise OptionError(f"unknown model {model!r}; known: {', '.join(models.labels(task))}")
                said = "Another model is being loaded first."

                def tell(text: str) -> None:
                    nonlocal said
                    said = text

                began = time.perf_counter()
                loading = asyncio.get_running_loop().run_in_executor(_LOADER, models.load, model, tell)
                while not (await asyncio.wait([loading], timeout=0.3))[0]:
                    seconds = time.perf_counter() - began
                    yield [f"{said} ({seconds:.0f} s)", *[gr.skip()] * (1 + len(outputs))]
                await loading
                yield await asyncio.to_thread(state, model, True)

        shown = [self.about, self.button, *outputs]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        gr.on(None, look, self.model, shown, **quiet)  # when the page is opened, and on every change of the list
        self.model.input(choose, self.model, shown, **quiet)
        loaded = self.button.click(
            load, self.model, shown, api_name=api_name, show_progress="hidden", concurrency_limit=None
        )
        loaded.failure(look, self.model, shown, **quiet)
