"""Every error that a user can cause, as one tree.

    MMError                       base: catch this to catch everything that mm raises on purpose
    |- InputError (ValueError)    what the caller passed cannot be used
    |  |- ImageError              an image that is missing, broken, unsafe or not an image
    |  |- PromptError             an empty prompt, image tags that do not match the images, a bad message
    |  |- ContextOverflowError    prompt + answer do not fit the context
    |  `- OptionError             a sampling, device, dtype or command option out of range
    |- CheckpointError            a model folder that cannot be used
    |  |- CheckpointNotFoundError not bundled, not a folder, not cached, not downloadable
    |  |- ConfigError             config.json contradicts itself or names something unknown
    |  `- WeightsError            missing, extra, misshapen, non-finite or unsafe tensors
    |- TaskError                  the model cannot do this task
    |- ResourceError              out of memory, disk full, cannot write
    `- MissingExtraError          an optional dependency is not installed

The message of each names what was got, what was expected and what to do next.
"""

import shlex


class MMError(Exception):
    """Base of every error that ``mm`` raises on purpose.

    Args:
        message: one or more sentences; the last one gets its full stop here.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if message.endswith((".", "?", "!")) else f"{message}.")


class InputError(MMError, ValueError):
    """What the caller passed cannot be used."""


class ImageError(InputError):
    """An image is missing, broken, unsafe to open, or not an image."""


class PromptError(InputError):
    """A prompt or message that cannot be turned into tokens."""


class ContextOverflowError(InputError):
    """Prompt and answer do not fit the context length of the model."""


class OptionError(InputError):
    """An option is unknown or out of its range."""


class CheckpointError(MMError):
    """A model folder cannot be used."""


class CheckpointNotFoundError(CheckpointError):
    """A model name leads to no files."""


class ConfigError(CheckpointError):
    """A configuration file contradicts itself, lacks a key or names something unknown."""


class WeightsError(CheckpointError):
    """Tensors are missing, unexpected, misshapen, non-finite or stored unsafely."""


class TaskError(MMError):
    """The model cannot do what was asked."""


class ResourceError(MMError):
    """The machine cannot do what was asked: memory, disk, permissions."""


class BusyError(ResourceError):
    """More requests are waiting than the engine takes."""


class MissingExtraError(MMError):
    """An optional dependency is missing; the message names the pip command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}. Install it with: pip install {shlex.quote(package)} "
            f"(or everything of its kind, in a checkout of mm: pip install '.[{extra}]')"
        )
