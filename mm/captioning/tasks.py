"""What is asked of every image, and what becomes of the answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mm.captioning.schema import check_schema, parse_answer, violation
from mm.chat import TASK_PROMPTS
from mm.errors import OptionError

# "caption" and "ocr" are what the bundled models were trained with; the others are plain instructions.
PROMPTS = {
    "caption": TASK_PROMPTS["caption"],
    "short": "Describe the image in one short sentence.",
    "detailed": "Describe the image in detail.",
    "tags": "List what the image shows as short tags, separated by commas.",
    "ocr": TASK_PROMPTS["ocr"],
    "json": "Describe the image as one JSON object and write nothing else.",
}
_PLACES = re.compile(r"\{(name|directory|tags)\}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked, and how the answer is dressed.

    Args:
        name: "caption", "short", "detailed", "tags", "ocr" or "json": which built-in prompt.
        prompt: asked instead. {name} is the image's file name without its ending, {directory} the name of its folder,
            {tags} its tags: the ``tags`` of its row in a table, or the text file of its name beside it.
        schema: answers must be JSON of this schema (``mm.captioning.schema``); the text is the JSON on one line.
        retries: how often a wrong JSON answer is asked for again, sampled at temperature 0.7.
        prefix: put before every answer.
        suffix: put after it.
        trigger_words: put before the answer, separated by commas, unless it holds them already.

    Raises:
        OptionError: an unknown name, an empty prompt, a schema that cannot be checked, or retries below 0.
    """

    name: str = "caption"
    prompt: str | None = None
    schema: Mapping[str, Any] | None = None
    retries: int = 2
    prefix: str = ""
    suffix: str = ""
    trigger_words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in PROMPTS:
            raise OptionError(f"unknown task {self.name!r}. Known: {', '.join(PROMPTS)}; or give a prompt of your own")
        if self.prompt is not None and not self.prompt.strip():
            raise OptionError("the prompt is empty. Write what to ask of every image, or leave it out")
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise OptionError(f"retries is {self.retries!r}; expected a whole number of 0 or more")
        if self.schema is not None:
            check_schema(self.schema)

    @property
    def reads_tags(self) -> bool:
        """Whether an image's tags are part of its question."""
        return self.prompt is not None and "{tags}" in self.prompt

    @property
    def wants_json(self) -> bool:
        """Whether answers are checked as JSON."""
        return self.schema is not None or self.name == "json"

    def question(self, name: str, tags: str) -> str:
        """The question about one image.

        Args:
            name: the image's path; what it contains is never read as a place to fill.
            tags: its tags.
        """
        path = PurePosixPath(name)
        values = {"name": path.stem, "directory": path.parent.name, "tags": tags}
        return _PLACES.sub(lambda place: values[place[1]], self.prompt or PROMPTS[self.name])

    def finish(self, text: str) -> str:
        """What is written for an answer.

        Raises:
            ValueError: the answer cannot be used; the message says why.
        """
        import json

        if not text.strip():
            raise ValueError("the answer is empty")
        if self.wants_json:
            try:
                value = parse_answer(text)
            except ValueError as error:
                raise ValueError(f"the answer is no JSON: {error}") from error
            found = violation(value, True if self.schema is None else self.schema)
            if found:
                raise ValueError(f"the answer is not of the schema: {found}")
            return json.dumps(value, ensure_ascii=False)
        text = text.strip()
        words = [word for word in self.trigger_words if word not in text]
        return self.prefix + ", ".join([*words, text]) + self.suffix
