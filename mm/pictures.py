"""What a caller may ask of a drawing, checked before any work, and what he gets back.

Letters: B pictures, H W pixels down and across.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mm.contracts import CancelToken, ImageHead
from mm.errors import ImageError, InputError, OptionError, PromptError
from mm.generation.sampling import SamplingOptions
from mm.generation.speculation import Speculation, check_speculates_on

OutputType = Literal["pil", "np", "pt"]
Rerank = Literal["self", "clip"]
Generators = torch.Generator | Sequence[torch.Generator] | None

MOST_PICTURES = 1024  # of one call: all of them are in memory at its end
# Of one picture, encoded or decoded: seven times what any model was trained for. Attention over them takes time and
# memory by their square (nano-janus on two cores: 4,096 take 4 and 7 seconds, 16,384 take 17 and 50).
MOST_CODES = 64 * 64
DEFAULT_STEPS = 30  # of a picture by flow, as JanusFlow was published with
MOST_STEPS = 1000
_MOST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class DrawDefaults:
    """What a model draws with where a caller names nothing: ``drawing`` in its folder's generation_config.json, or else
    as Janus was published.

    Raises:
        OptionError: a value out of its range.
    """

    guidance_scale: float = 5.0
    temperature: float = 1.0
    top_p: float | None = None

    def __post_init__(self) -> None:
        DrawOptions(guidance_scale=self.guidance_scale, temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What one picture was drawn from and how.

    Attributes:
        prompt: what was asked for.
        seed: draws it again, alone and with the same settings; None where the caller's own generator was used.
        codes: the image codes, row by row; none of a picture that was drawn by flow.
        score: of ``rerank``: "self" the log-likelihood of the prompt given the picture, "clip" the cosine of both; None
            where none was asked for or the run was cancelled.
    """

    prompt: str
    seed: int | None
    codes: tuple[int, ...]
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """All pictures of a call, prompt after prompt; with ``best_of`` the best of each prompt first.

    Attributes:
        images: as ``output_type`` says: "pil" a list of PIL images; "np" (B, H, W, 3) float32 and "pt" (B, 3, H, W)
            float32 on the CPU, both 0 to 1.
        pictures: how each was made, in the same order.
        cancelled: the caller has ended the run: only what was whole by then is here.
    """

    images: list[Image.Image] | npt.NDArray[np.float32] | Tensor
    pictures: tuple[Picture, ...]
    cancelled: bool = False


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A picture so far. It is approximate until it is whole: what is below a row changes how the row is painted.

    Attributes:
        image: the rows of codes that are whole, as a picture of less height; of a picture by flow, what it will be if
            the flow keeps its direction. None before the first row or step.
        rows: how many rows of codes are whole; of a picture by flow, how many steps are taken.
        num_rows: of a whole picture.
        unit: what is counted: "row" or "step".
    """

    image: Image.Image | None
    rows: int
    num_rows: int
    unit: Literal["row", "step"] = "row"

    @property
    def approximate(self) -> bool:
        """Whether the same part of the whole picture will look a little different."""
        return self.rows < self.num_rows


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """Options of a call, checked.

    Args:
        num_images: pictures of each prompt that are returned.
        guidance_scale: how far from the unconditional prompt; 1 is none, 0 draws from the unconditional prompt alone.
        temperature: divides the logits; 0 takes the most likely code.
        top_k: sample from the k most likely codes; None or 0 takes all.
        top_p: sample from the most likely codes that make up this probability; None or 1 takes all.
        num_inference_steps: of a picture by flow; None is as published.
        seed: of the first picture of each prompt; the others follow in steps of 1.
        generator: one of torch's, or one for each picture that is drawn, instead of a seed.
        best_of: pictures of each prompt that are drawn; the best are returned.
        rerank: what judges them; None is "self" where ``best_of`` is given.
        output_type: form of the result.
        batch_size: most pictures in the engine at once; None is as many as it takes.
        speculation: "jacobi": several codes in a step; None: one.
        speculation_window: most codes of such a step; None is 16.
        cancel: asked before each step; ends the run once it says True.

    Raises:
        OptionError: a value out of its range, or a contradiction.
    """

    num_images: int = 1
    guidance_scale: float = 5.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    num_inference_steps: int | None = None
    seed: int | None = None
    generator: Generators = None
    best_of: int | None = None
    rerank: Rerank | None = None
    output_type: OutputType = "pil"
    batch_size: int | None = None
    cancel: CancelToken | None = None
    speculation: Speculation | None = None
    speculation_window: int | None = None

    def __post_init__(self) -> None:
        _check_count("num_images_per_prompt", self.num_images, 1, MOST_PICTURES)
        scale = self.guidance_scale
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale < float("inf"):
            raise OptionError(
                f"guidance_scale is {scale!r}; expected a number of 0 or more. 5 is what Janus was published with, 1 "
                "is no guidance"
            )
        if self.temperature is None:
            raise OptionError("temperature is None; expected a number of 0 or more. 1 is as trained, 0 is greedy")
        _ = self.sampling  # raises what is wrong with it
        check_speculates_on("pictures", self.speculation)
        if self.num_inference_steps is not None:
            _check_count("num_inference_steps", self.num_inference_steps, 1, MOST_STEPS)
        if self.best_of is not None:
            _check_count("best_of", self.best_of, self.num_images, MOST_PICTURES)
        if self.rerank not in (None, *get_args(Rerank)):
            raise OptionError(f"rerank is {self.rerank!r}; expected one of {', '.join(get_args(Rerank))}")
        if self.output_type not in get_args(OutputType):
            raise OptionError(f"output_type is {self.output_type!r}; expected one of {', '.join(get_args(OutputType))}")
        if self.batch_size is not None:
            _check_count("batch_size", self.batch_size, 1, MOST_PICTURES)
        if self.seed is not None and self.generator is not None:
            raise OptionError("got both seed= and generator=. Leave one of the two out")
        if self.seed is not None and self.seed > _MOST_SEED - MOST_PICTURES:
            raise OptionError(
                f"seed is {self.seed}; the pictures after the first need larger ones. Choose a smaller seed"
            )
        if self.cancel is not None and not callable(getattr(self.cancel, "is_set", None)):
            raise OptionError(f"cancel is {self.cancel!r}; expected an object with is_set(), such as threading.Event")

    def check_kind(self, name: str, *, flows: bool) -> None:
        """Refuse options that would do nothing.

        Args:
            name: of the model.
            flows: whether it draws by flow, or else with codes.

        Raises:
            OptionError: such an option.
        """
        if not flows and self.num_inference_steps is not None:
            raise OptionError(
                f"num_inference_steps is {self.num_inference_steps}, but {name} draws code after code and takes no "
                "such steps. Leave it out"
            )
        if flows and self.speculation is not None:
            raise OptionError(
                f"speculation is {self.speculation!r}, but {name} draws by flow, all of a picture in each step. Leave "
                "it out"
            )
        given = {"temperature": None if self.temperature == 1 else self.temperature, "top_k": self.top_k}
        given["top_p"] = None if self.top_p == 1 else self.top_p
        for option, value in given.items():
            if flows and value is not None:
                raise OptionError(
                    f"{option} is {value}, but {name} draws by flow, which chooses nothing: only the noise that it "
                    "begins with is random. Leave it out"
                )

    @property
    def num_drawn(self) -> int:
        """Pictures of each prompt that are drawn."""
        return self.num_images if self.best_of is None else self.best_of

    @property
    def judge(self) -> Rerank | None:
        """What scores the pictures."""
        return "self" if self.rerank is None and self.best_of is not None else self.rerank

    @property
    def sampling(self) -> SamplingOptions:
        """How a code is chosen."""
        return SamplingOptions(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
            detect_loops=False,
            speculation=self.speculation,
            speculation_window=self.speculation_window,
        )

    def generators(self, num_prompts: int) -> list[tuple[int | None, torch.Generator]]:
        """Seed (where it is known) and random numbers of each picture that is drawn, prompt after prompt.

        A single generator serves a single picture itself; for several it gives each a seed.

        Raises:
            OptionError: too many pictures; generators of another number, not on the CPU, or one of them twice.
        """
        count = num_prompts * self.num_drawn
        if count > MOST_PICTURES:
            raise OptionError(
                f"{num_prompts} prompts x {self.num_drawn} pictures are {count:,}, and one call draws at most "
                f"{MOST_PICTURES:,}. Make several calls"
            )
        own = self.generator
        if own is not None:
            listed = list(own) if isinstance(own, Sequence) else [own]
            _check_generators(listed)
            if not isinstance(own, torch.Generator) and len(listed) != count:
                raise OptionError(
                    f"got {len(listed)} generators for {count} pictures. Pass one for each, or one for all"
                )
            if len(listed) == count:
                return [(None, generator) for generator in listed]
            seeds = torch.randint(_MOST_SEED, (count,), generator=listed[0]).tolist()
        else:
            first = self.seed
            if first is None:  # short enough to be typed
                first = int(torch.randint(2**32, (), generator=_fresh()).item())
            seeds = [first + index for _ in range(num_prompts) for index in range(self.num_drawn)]
        return [(seed, torch.Generator().manual_seed(seed)) for seed in seeds]


def as_prompts(prompt: str | Sequence[str]) -> list[str]:
    """One prompt or several as a list.

    Raises:
        PromptError: something else, or none.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt) if isinstance(prompt, Sequence) else [prompt]
    for item in prompts:
        if not isinstance(item, str):
            raise PromptError(f"a prompt is {item!r}; expected text, or a list of texts")
    if not prompts:
        raise PromptError("the list of prompts is empty. Write what to draw")
    return prompts


def as_negative_prompts(negative: str | Sequence[str] | None, count: int, guidance_scale: float) -> list[str | None]:
    """The negative prompt of each prompt.

    Raises:
        OptionError: without guidance it would do nothing.
        PromptError: another number than there are prompts.
    """
    if negative is None:
        return [None] * count
    if guidance_scale == 1:
        raise OptionError("negative_prompt needs guidance, and guidance_scale is 1. Use one above 1, or leave it out")
    if isinstance(negative, str):
        return [negative] * count
    listed = as_prompts(negative)
    if len(listed) != count:
        raise PromptError(f"got {len(listed)} negative prompts for {count} prompts. Pass one for each, or one for all")
    return list(listed)


def check_size(width: int | None, height: int | None, *, trained: tuple[int, int], name: str) -> None:
    """Refuse a size that the model was not trained for.

    Args:
        width: pixels; None is as trained.
        height: likewise.
        trained: (height, width).
        name: of the model.

    Raises:
        OptionError: another size.
    """
    asked = (trained[0] if height is None else height, trained[1] if width is None else width)
    if asked != trained:
        raise OptionError(
            f"a picture of {asked[1]}x{asked[0]} pixels was asked for, and {name} was trained for "
            f"{trained[1]}x{trained[0]} alone. Draw that size and resize it"
        )


def check_num_codes(size: tuple[int, int], head: ImageHead) -> None:
    """Refuse a picture of far more codes than a model was trained for.

    Args:
        size: pixels down and across.
        head: of the model.

    Raises:
        ImageError: more than ``MOST_CODES``.
    """
    side = head.size[0] // head.grid[0]
    count = (size[0] // side) * (size[1] // side)
    if count > MOST_CODES:
        raise ImageError(
            f"a picture of {size[1]}x{size[0]} pixels has {count:,} codes of {side}x{side}, and at most {MOST_CODES:,} "
            f"are made: time and memory grow with their square. Resize it to {head.size[1]}x{head.size[0]}, which the "
            "model was trained for (mm tokens encode --resize), or cut a part out of it"
        )


def codes_tensor(codes: Any) -> Tensor:
    """Codes of one picture, row by row, in the forms that callers have -> (h, w) int64.

    Args:
        codes: tensor, array or nested lists of whole numbers.

    Raises:
        InputError: something else, or more than ``MOST_CODES``; which codes there are is for the model to say.
    """
    try:
        array = np.asarray(codes)
    except ValueError as error:  # rows of different length
        raise InputError(f"codes are rows of different length ({error}). Pass a rectangle of whole numbers") from error
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise InputError(
            f"codes are of shape {array.shape} and type {array.dtype}; expected a rectangle of whole numbers, such as "
            "24 rows of 24"
        )
    if array.size > MOST_CODES:
        raise InputError(
            f"{array.shape[0]:,} x {array.shape[1]:,} codes were given, and at most {MOST_CODES:,} are decoded at "
            "once. Decode a part of them"
        )
    return torch.from_numpy(array.astype(np.int64))


def psnr(first: Image.Image, second: Image.Image) -> float:
    """The peak signal-to-noise ratio of two pictures in decibels: 10 log10(255^2 / mean square error); inf if equal.

    Raises:
        ImageError: they differ in size.
    """
    if first.size != second.size:
        raise ImageError(
            f"a picture of {first.width}x{first.height} pixels cannot be compared with one of "
            f"{second.width}x{second.height}. Resize one of them"
        )
    error = np.asarray(first.convert("RGB"), dtype=np.float64) - np.asarray(second.convert("RGB"), dtype=np.float64)
    mean = float((error**2).mean())
    return 10 * math.log10(255**2 / mean) if mean else math.inf


def _fresh() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


def _check_generators(generators: Sequence[Any]) -> None:
    for generator in generators:
        if not isinstance(generator, torch.Generator):
            raise OptionError(f"generator is {generator!r}; expected a torch.Generator, or a list of them")
        if generator.device.type != "cpu":
            raise OptionError(
                f"a generator is on {generator.device}; expected one on the CPU, so that a seed draws the same picture "
                "on every device: torch.Generator().manual_seed(...)"
            )
    if len({id(generator) for generator in generators}) < len(generators):
        raise OptionError("a generator is in the list twice. Each picture needs its own")


def _check_count(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        shown = f"{value:,}" if type(value) is int else repr(value)
        raise OptionError(f"{name} is {shown}; expected a whole number from {low:,} to {high:,}")
