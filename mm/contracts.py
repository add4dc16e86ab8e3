"""What one part of ``mm`` may know of another: plain records and Protocols, no behaviour.

Letters: B rows, T tokens of a call, S cached positions, D hidden size, N image views, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

# Reasoning in front of an answer: the prompt has begun it, or the answer may begin with it.
Reasoning = Literal["begun", "may begin"]


@dataclass(frozen=True)
class ImageSpan:
    """Where one image of a conversation stands."""

    start: int  # first position in input_ids
    stop: int  # one past the last
    width: int  # pixels of the image as opened (after EXIF rotation), for boxes
    height: int


@dataclass(frozen=True)
class Inputs:
    """One conversation, ready for a model. Tensors are on the CPU and are never written to."""

    input_ids: Tensor  # (T,) int64; every image position holds the image token's id
    image_mask: Tensor  # (T,) bool; True where an image token stands
    pixels: Tensor  # (N, 3, S, S) float32, normalised; image after image, the global view before its tiles, row by row
    tile_grids: Tensor  # (num_images, 2) int64: tiles across, tiles down; (0, 0) is an image of its global view alone
    spans: tuple[ImageSpan, ...]  # one per image, in order
    prompt: str  # the formatted conversation, for display and logs only
    labels: Tensor | None = None  # (T,) int64 target ids for training, the ignore id where no loss is taken
    reasoning: Reasoning | None = None  # whether the answer opens with reasoning; None: of a model that does not reason

    @property
    def num_tokens(self) -> int:
        """Prompt length T, image tokens included."""
        return int(self.input_ids.shape[0])


@dataclass(frozen=True)
class Batch:
    """Conversations of different length in one rectangle (training, parity)."""

    input_ids: Tensor  # (B, T) int64, padded
    attention_mask: Tensor  # (B, T) bool, False on padding
    image_mask: Tensor  # (B, T) bool
    labels: Tensor | None  # (B, T) int64
    rows: tuple[Inputs, ...]


@dataclass(frozen=True)
class DrawingPrompt:
    """What a picture is drawn from. Tensors are on the CPU; the two may differ in length."""

    conditional: Tensor  # (T,) int64, up to and with the token after which codes stand, or in whose place a flow begins
    unconditional: Tensor  # (U,) int64, what guidance leads away from
    text: str  # the conditional prompt, for display and logs only
    attended: int | None = None  # leading tokens of `unconditional` that are attended; None: all, its pads included


class CancelToken(Protocol):
    """Asked between steps; ``threading.Event`` satisfies it."""

    def is_set(self) -> bool:
        """True once the caller wants the run to end."""
        ...


class Cache(Protocol):
    """The preallocated memory of attention: ``num_rows`` rows of ``length`` token slots."""

    num_rows: int
    length: int

    def bytes_per_token(self) -> int:
        """Bytes one token of one row takes over all layers."""
        ...

    def bytes_by_device(self) -> dict[torch.device, int]:
        """The same on each device that has layers."""
        ...

    def rows(self, start: int, stop: int) -> "Cache":
        """A view of rows start..stop-1 that shares memory with this cache."""
        ...

    def copy_row(self, target: int, other: Self, source: int, length: int) -> None:
        """Write the first ``length`` slots of row ``source`` of ``other`` (or of this cache) to row ``target``."""
        ...

    def swap_rows(self, first: int, second: int, length: int) -> None:
        """Exchange the first ``length`` slots of two rows."""
        ...

    def clear_row(self, row: int) -> None:
        """Zeros in all slots of a row."""
        ...


class Decoder(Protocol):
    """A causal decoder as generation sees it."""

    vocab_size: int
    max_positions: int

    @property
    def joins_prompts(self) -> bool:
        """Whether ``prompts`` runs without waiting for the host, and no prompt's numbers depend on the others but by
        rounding: products are computed prompt by prompt, but for those of experts, each row of which is added up by
        itself."""
        ...

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, D)."""
        ...

    def new_cache(self, num_rows: int, length: int) -> Cache:
        """An empty cache on the decoder's device and dtype."""
        ...

    def __call__(
        self,
        embeds: Tensor,
        *,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        visible: int | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D) hidden states after the final norm.

        Args:
            embeds: input embeddings.
            positions: (B, T) int64, the position of each token, which is also the cache slot it is written to; None
                means 0..T-1 in every row.
            cache: memory to write keys to and read them from; None attends within this call only.
            visible: number of leading cache slots that are read; must exceed every position. None means all of them.
                A plain int, so that a step has no shape that depends on data.
            key_mask: (B, visible) bool (or (B, T) without a cache); False hides a slot from every query of that row.
                Causality (slot <= position) always holds.
        """
        ...

    def prompts(
        self,
        embeds: Tensor,
        *,
        rows: Tensor,
        starts: Tensor,
        counts: Tensor,
        cache: Cache,
        visible: int | None = None,
    ) -> Tensor:
        """Stretches of several prompts at once, padded at their ends to one length: (B, T, D) -> (B, D) hidden states
        after the final norm, of the last token of each.

        Where a stretch stands and how long it is are tensors, so that prompts of any length up to T and any rows of the
        cache are one shape. What stands behind a stretch is seen by none of its tokens (attention is causal) and goes
        to the cache's last slot, which no request uses.

        Args:
            embeds: input embeddings; whatever stands behind a stretch is not looked at.
            rows: (B,) int64, different rows of the cache.
            starts: (B,) int64, first positions.
            counts: (B,) int64, tokens of each stretch, from 1 to T.
            cache: all of its rows; holds what stands before the stretches.
            visible: number of leading cache slots that are read, more than any position of a stretch; None where the
                stretches begin their prompts (``starts`` are 0).
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32."""
        ...


class ViewMemory(Protocol):
    """Remembers encoded views."""

    def encode(self, pixels: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, 3, S, S) -> (N, M, D); only views that are not remembered go through ``encode``."""
        ...


class MultimodalModel(Protocol):
    """A built model as generation and pipelines see it."""

    @property
    def decoder(self) -> Decoder:
        """The language model."""
        ...

    @property
    def image_head(self) -> "ImageHead | None":
        """What draws with codes; None where the weights hold nothing that does."""
        ...

    @property
    def flow_head(self) -> "FlowHead | None":
        """What draws by flow; None where the weights hold nothing that does."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are; of a model on several devices the first one."""
        ...

    @property
    def placement(self) -> tuple[torch.device, ...] | None:
        """Where each layer of the decoder is; None where all of the model is on one device."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        ...

    def embed_inputs(self, inputs: list[Inputs], memory: ViewMemory | None = None) -> list[Tensor]:
        """Embeddings (T_i, D) of each conversation, image features in place; remembered views are not encoded."""
        ...


class ImageTokenizer(Protocol):
    """Pictures to codes and back."""

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 -> (B, N) int64, row by row."""
        ...

    def decode(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N) of a grid (down, across) -> (B, 3, H, W) float32, about -1..1."""
        ...


class ImageHead(Protocol):
    """The generation side of a model, as a loop over image tokens sees it. Letters: K codes of the codebook."""

    num_codes: int
    grid: tuple[int, int]  # codes down and across of a picture of the trained size
    size: tuple[int, int]  # its pixels down and across

    @property
    def vq(self) -> ImageTokenizer:
        """The image tokenizer."""
        ...

    def embed(self, codes: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, D), what the decoder is given after a code was chosen."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) hidden states after the final norm -> (..., K) float32."""
        ...


class FlowHead(Protocol):
    """The generation side of a model that draws by flow. Letters: C channels and h x w of the latents, P patches of a
    picture, W width and g patches a side of what is kept between the two calls."""

    latent_shape: tuple[int, int, int]  # (C, h, w)
    num_positions: int  # 1 + P: of a picture in the decoder, the time included
    size: tuple[int, int]  # its pixels down and across

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def encode(self, latents: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, C, h, w) and time (B,) in 0..1000 -> tokens (B, P, D), time embedding (B, D), and what
        ``velocity`` needs of the latents (B, W, g, g)."""
        ...

    def velocity(self, hidden: Tensor, skip: Tensor, moment: Tensor) -> Tensor:
        """Hidden states (B, P, D) of the patches after the final norm, and the two last results of ``encode`` ->
        (B, C, h, w)."""
        ...


class LatentPainter(Protocol):
    """Latents to pixels."""

    def warm_up(self) -> None:
        """Load now what the first call of ``decode`` would load."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W) float32, about -1..1."""
        ...
