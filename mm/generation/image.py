"""One picture in the making, and how its prompt is handed in.

What draws is the engine's own loop (``mm.generation.scheduler``): a picture is an answer whose tokens are image codes,
with one row of the cache for its prompt and, under guidance, a second one for the prompt that it is led away from.
"""

import torch
from torch import Tensor

from mm.contracts import Inputs
from mm.errors import OptionError
from mm.generation.sampling import SamplingOptions
from mm.generation.speculation import check_speculates_on
from mm.generation.stopping import FinishReason


class ImageRow:
    """The codes of one picture: options, random numbers, and why it ended ("stop": it is whole, or "cancelled").

    Args:
        options: how to choose codes.
        num_codes: codes of a whole picture.
        generator: this picture's own random numbers, on the CPU; one is taken a code, none where it is greedy. With
            speculation two are taken for each place of a pass.

    Raises:
        OptionError: speculation of the kind for texts, or together with log-probabilities.
    """

    def __init__(self, *, options: SamplingOptions, num_codes: int, generator: torch.Generator) -> None:
        assert num_codes >= 1
        check_speculates_on("pictures", options.speculation)
        if options.speculation is not None and options.logprobs:
            raise OptionError(
                f"logprobs=True is for texts, and speculation={options.speculation!r} gives none of the codes of a "
                "picture. Leave one of the two out."
            )
        self.options = options
        self.max_new_tokens = num_codes
        self.prompt_ids = torch.empty(0, dtype=torch.int64)  # of tokens: they are no codes that could be repeated
        self.tokens: list[int] = []  # codes, row by row
        self.finish_reason: FinishReason | None = None
        self._generator = generator

    @property
    def is_constrained(self) -> bool:
        """False: no code forbids another."""
        return False

    def allowed(self) -> Tensor | None:
        """None: every code may come next."""
        return None

    def uniform(self) -> float:
        """The next random number of this picture, in [0, 1)."""
        return torch.rand((), generator=self._generator).item()

    def push(self, token: int, logprob: float | None) -> str:
        """Take the next code; no text comes of it."""
        assert self.finish_reason is None
        self.tokens.append(token)
        if len(self.tokens) == self.max_new_tokens:
            self.finish_reason = "stop"
        return ""

    def finish(self, reason: FinishReason) -> str:
        """End the picture as it is."""
        assert self.finish_reason is None
        self.finish_reason = reason
        return ""


def prompt_inputs(ids: Tensor) -> Inputs:
    """Ids (T,) of a prompt without pictures, as the engine takes it."""
    return Inputs(
        input_ids=ids,
        image_mask=torch.zeros(len(ids), dtype=torch.bool),
        pixels=torch.empty(0, 3, 1, 1),
        tile_grids=torch.zeros(0, 2, dtype=torch.int64),
        spans=(),
        prompt="",
    )
