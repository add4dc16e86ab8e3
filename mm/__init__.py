"""Run, check and train the DeepSeek line of multimodal models.

    from mm import Pipeline
    pipe = Pipeline.from_pretrained("nano-vl2")
    print(pipe.chat("receipt.png", "What is the total?"))

Importing this package imports nothing else; each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mm.chat import Message
    from mm.drawing import DrawingProgress
    from mm.errors import (
        BusyError,
        CheckpointError,
        CheckpointNotFoundError,
        ConfigError,
        ContextOverflowError,
        ImageError,
        InputError,
        MissingExtraError,
        MMError,
        OptionError,
        PromptError,
        ResourceError,
        TaskError,
        WeightsError,
    )
    from mm.grounding import Box, draw_boxes, parse_boxes
    from mm.pictures import Drawings, Picture, Preview
    from mm.pipeline import Pipeline
    from mm.reply import OcrResult, Reply, TextStream, Usage
    from mm.request import Request

__version__ = "0.1.0"

_MODULES = {
    "mm.chat": ("Message",),
    "mm.drawing": ("DrawingProgress",),
    "mm.errors": (
        "BusyError",
        "CheckpointError",
        "CheckpointNotFoundError",
        "ConfigError",
        "ContextOverflowError",
        "ImageError",
        "InputError",
        "MMError",
        "MissingExtraError",
        "OptionError",
        "PromptError",
        "ResourceError",
        "TaskError",
        "WeightsError",
    ),
    "mm.grounding": ("Box", "draw_boxes", "parse_boxes"),
    "mm.pictures": ("Drawings", "Picture", "Preview"),
    "mm.pipeline": ("Pipeline",),
    "mm.reply": ("OcrResult", "Reply", "TextStream", "Usage"),
    "mm.request": ("Request",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Box",
    "BusyError",
    "CheckpointError",
    "CheckpointNotFoundError",
    "ConfigError",
    "ContextOverflowError",
    "DrawingProgress",
    "Drawings",
    "ImageError",
    "InputError",
    "MMError",
    "Message",
    "MissingExtraError",
    "OcrResult",
    "OptionError",
    "Picture",
    "Pipeline",
    "Preview",
    "PromptError",
    "Reply",
    "Request",
    "ResourceError",
    "TaskError",
    "TextStream",
    "Usage",
    "WeightsError",
    "draw_boxes",
    "parse_boxes",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'mm' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
