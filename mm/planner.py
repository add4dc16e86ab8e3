"""What a model takes, counted from its config alone: parameters, cache slots, and bytes at the worst moment of a run.

Everything follows from config.json and processor_config.json. The model is built on the meta device, so that parameters
and the cache are counted, not estimated; only the memory of activations is a formula (`Planner.activations`).

Letters: B rows (conversations run together), T prompt tokens, V image views encoded at once, P patches of a view,
W encoder width, D hidden size, M MLP width, K experts a token, I expert width, S cache slots.
"""

import math
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mm.config import LatentAttentionConfig, Quantization
from mm.errors import ContextOverflowError, OptionError
from mm.families.table import (
    build_model,
    load_config,
    load_spec,
    unused_elements,
)
from mm.generation.prefill import CHUNKS_TOGETHER, padded_length
from mm.generation.scheduler import VIEWS_TOGETHER
from mm.generation.slots import LENGTH_BLOCK
from mm.generation.text import CPU_BULK_CHUNK, GPU_PREFILL_CHUNK, PREFILL_CHUNK
from mm.hub import AUTOENCODER_BYTES
from mm.language.decoder import DecoderLayer
from mm.language.latent_attention import LatentAttention
from mm.language.moe import Experts
from mm.model import VIEWS_PER_PASS
from mm.transforms.split import part_sizes
from mm.view_cache import kept_bytes

# What a process takes beside the model. Main memory, measured on Linux with torch 2.15: Python with torch and what
# building a model imports, after an answer, of models with and without an encoder; and diffusers, which only what draws
# imports. And what glibc's heap keeps of blocks that were freed between others that live, measured as up to once more
# all activations: of blocks below 32 MiB (mallopt(3), M_MMAP_THRESHOLD), of which no moment has more than three large
# ones; larger blocks are mapped apart and go back at once. CUDA: its context and the libraries' workspaces, assumed: a
# plan should not promise the last byte.
HOST_OVERHEAD = 800 * 10**6
PAINTER_OVERHEAD = 70 * 10**6
HEAP_KEPT = 3 * 32 * 2**20
CUDA_OVERHEAD = 700 * 10**6


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What the model is asked to do at once.

    Args:
        prompt_tokens: text tokens of a prompt, without its images.
        images: images of a prompt.
        image_size: width and height of each in pixels; None takes the size that needs most tiles.
        max_new_tokens: longest answer.
        batch: conversations answered together.
        pictures: drawn together instead, each with guidance: two rows of the cache a picture, as long as the prompt and
            its codes or latents. Then ``images``, ``max_new_tokens`` and ``batch`` say nothing.
        max_tiles: most tiles an image is cut into; None as published.
        context: the context length to hold; None what prompt and answer need.
    """

    prompt_tokens: int = 256
    images: int = 1
    image_size: tuple[int, int] | None = None
    max_new_tokens: int = 512
    batch: int = 1
    pictures: int = 0
    max_tiles: int | None = None
    context: int | None = None

    @property
    def rows(self) -> int:
        """Of the cache."""
        return 2 * self.pictures or self.batch

    def __post_init__(self) -> None:
        for name, least in (("prompt_tokens", 1), ("images", 0), ("max_new_tokens", 1), ("batch", 1), ("pictures", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}; expected {least} or more.")
        for name in ("max_tiles", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} is {value}; expected 1 or more.")
        if self.image_size is not None and min(self.image_size) < 1:
            raise OptionError(f"image_size is {self.image_size}; expected a width and a height of 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers, not bytes.

    ``activated`` counts what one token passes: the decoder without its input embedding (a look-up), with the chosen and
    the shared experts only. The encoder and the adaptor run once per image; their parameters are all used.
    """

    total: int  # of the model as it runs
    in_published_files: int  # with what published files hold and the model does not use
    decoder: int
    vision: int
    adaptor: int
    image_side: int  # what draws: code embedding, aligner, head and image tokenizer; of a flow encoder and decoder
    activated: int


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Bytes at the worst moment."""

    weights: int
    cache: int
    views: int  # encoded earlier and kept for the next question, at most
    activations: int  # estimated
    overhead: int  # of the process

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.views + self.activations + self.overhead


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Bytes of activations by what computes them: ``held`` and the largest of the others are alive together."""

    held: int  # pixels and pictures
    widened: int  # quantised weights made wide, and what recorded calls keep
    first: int  # encoder and embeddings; what paints
    layers: int  # a prompt's piece, or a step
    growth: int  # of the cache
    last: int  # choosing the next token


class Planner:
    """Counts of one model, from its config alone.

    Args:
        folder: with the config.
        quantization: of the weights that run.

    Raises:
        ConfigError: the config is not understood.
    """

    def __init__(self, folder: Path, quantization: Quantization | None = None) -> None:
        self.quantization = quantization
        self.config = load_config(folder)
        self.spec = load_spec(folder)
        self.model = build_model(self.config)

    def rounded(self, kind: Quantization) -> "Planner":
        """The same model with quantised weights."""
        other = copy(self)
        other.quantization = kind
        return other

    def parameters(self) -> Parameters:
        """Count them on the meta device."""
        decoder, vision = _count(self.model.decoder), _count(self.model.vision)
        total = _count(self.model)
        image_side = sum(_count(head) for head in (self.model.image_head, self.model.flow_head) if head is not None)
        moe = self.config.decoder.moe
        resting = 0
        if moe is not None:
            resting = sum(_count(part) for part in self.model.decoder.modules() if isinstance(part, Experts))
            resting = resting * (moe.num_experts - moe.num_experts_per_token) // moe.num_experts
        return Parameters(
            total=total,
            in_published_files=total + unused_elements(self.config),
            decoder=decoder,
            vision=vision,
            adaptor=total - decoder - vision - image_side,
            image_side=image_side,
            activated=decoder - _count(self.model.decoder.model.embed_tokens) - resting,
        )

    def cache_bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes that one token of one conversation takes over all layers."""
        return self.model.to(dtype).decoder.new_cache(1, 1).bytes_per_token()

    def cache(self, work: Workload, dtype: torch.dtype) -> int:
        """Bytes of the cache as the engine makes it: rows in powers of two, in blocks of so many slots."""
        rows = 1 << (work.rows - 1).bit_length()
        return rows * -(-self.tokens(work) // LENGTH_BLOCK) * LENGTH_BLOCK * self.cache_bytes_per_token(dtype)

    def grid(self, work: Workload) -> tuple[int, int]:
        """Tiles across and down of one image: of its size, or the most tokens that an image can take."""
        return self.spec.grid(work.image_size, num_images=work.images, max_tiles=work.max_tiles)

    def image_tokens(self, work: Workload) -> int:
        """Prompt tokens of one image."""
        return self.spec.num_tokens(self.grid(work))

    def tokens(self, work: Workload) -> int:
        """Cache slots of one conversation: ``context`` where given, else prompt, images and answer."""
        needed = work.prompt_tokens + work.images * self.image_tokens(work) + work.max_new_tokens
        if work.context is not None and needed > work.context:
            raise ContextOverflowError(
                f"{needed:,} tokens ({work.prompt_tokens:,} of text, {work.images} x {self.image_tokens(work):,} of "
                f"images, {work.max_new_tokens:,} of answer) do not fit a context of {work.context:,}. Use a larger "
                "--context, a smaller --max-tiles or --max-new-tokens, or fewer images."
            )
        return work.context or needed

    def activations(self, work: Workload, dtype: torch.dtype, device_type: str = "cpu", *, bulk: bool = False) -> int:
        """Bytes of everything that is neither weight nor cache, at the worst moment (an estimate).

        Args:
            work: what is run.
            dtype: of the weights.
            device_type: where.
            bulk: as ``mm.pipeline.Pipeline`` runs when only the last answer is waited for.

        Held all the time: the pixels of the images, in main memory, and of pictures that are drawn. On top the largest
        of these moments, each the tensors that are alive together. Prompts are taken in one after another, with bulk on
        an accelerator as many as are encoded together:

        * encoder: what its config counts for V views (``block_numbers``), the views' pixels and their tokens;
        * embeddings: three times the prompt;
        * prefill of one chunk of C tokens, beside the prompt's embeddings: C x 3 D, and ``_mlp`` or ``_attention``;
        * a decode step: the same of one token a row;
        * choosing the next token: six rows of float32 over the vocabulary, or over the codes of pictures;
        * painting a picture: six of the decoder's widest tensors at the full size, one picture at a time;
        * a cache that grows: half of it once more, the old one.

        Beside each of these, quantised weights that are made wide (``_widened``), and what recorded calls keep
        (``recorded``).
        """
        moments = self.moments(work, dtype, device_type, bulk=bulk)
        largest = max(moments.first, moments.layers, moments.growth, moments.last)
        return moments.held + moments.widened + largest

    def moments(
        self,
        work: Workload,
        dtype: torch.dtype,
        device_type: str = "cpu",
        *,
        bulk: bool = False,
        spread: bool = False,
    ) -> Moments:
        """The parts of ``activations``; ``spread`` over several devices nothing is recorded."""
        decoder, size = self.config.decoder, dtype.itemsize
        on_host, width = device_type == "cpu", decoder.hidden_size
        across, down = self.grid(work)
        views = 1 + across * down if work.images else 0  # of an image
        slots = self.tokens(work)
        prompt = slots - work.max_new_tokens
        pixels = 3 * self.config.vision.image_size**2  # of a view
        held = work.rows * work.images * views * pixels * 4 if on_host else 0

        prompts, at_once = 1, min(views, VIEWS_PER_PASS)
        if bulk and not on_host and views:
            prompts = min(work.rows, max(1, VIEWS_TOGETHER // (work.images * views)))
            at_once = min(prompts * work.images * views, VIEWS_PER_PASS)
        tokens = prompts * prompt
        encoder = self.config.vision.block_numbers(at_once) * size + at_once * pixels * (4 * on_host + size % 4)
        encoder += (tokens + max(at_once, views) * self.spec.tokens_per_view) * width * size
        embeddings = 3 * tokens * width * size

        together = min(prompt, _chunk(device_type, bulk))
        if work.pictures and self.model.flow_head is not None:  # every step computes all positions of a picture
            together = 2 * work.max_new_tokens
        later = prompt > together
        prefill = tokens * width * size + self._layer(together, slots, dtype, device_type, rows=1, later=later)
        decode = self._layer(work.rows, slots, dtype, device_type, rows=work.rows, later=True)
        recorded = self.recorded(work, dtype) if device_type == "cuda" and not spread else 0

        choice = work.rows * decoder.vocab_size * 6 * 4
        painting = 0
        if work.pictures:
            artist = self.model.image_head or self.model.flow_head
            assert artist is not None
            painted = math.prod(artist.size)
            held += work.pictures * 3 * painted * 4
            painting = 6 * painted * self._painted_width() * size
            if self.model.image_head is not None:
                choice = work.rows * self.model.image_head.num_codes * 6 * 4
        return Moments(
            held=held,
            widened=self._widened(dtype, device_type) + recorded,
            first=max(encoder, embeddings, painting),
            layers=max(prefill, decode),
            growth=self.cache(work, dtype) // 2 if work.rows > 1 else 0,
            last=choice,
        )

    def recorded(self, work: Workload, dtype: torch.dtype) -> int:
        """Bytes that recorded calls on a GPU keep (``mm.generation.prefill``): the embeddings that they read, and what
        the largest one of them computes, which all of them share. 0 where prompts are not recorded
        (``mm.language.fast_decode.FastDecode``: of routers the kernels are for the greedy ones)."""
        decoder, slots = self.config.decoder, self.tokens(work)
        if self.quantization is not None or dtype == torch.float16:
            return 0
        if decoder.moe is not None and (dtype != torch.bfloat16 or decoder.moe.method != "greedy"):
            return 0
        prompt = slots - work.max_new_tokens
        room = CHUNKS_TOGETHER * GPU_PREFILL_CHUNK
        length = padded_length(min(max(prompt, 1), GPU_PREFILL_CHUNK))
        together = 1 << (max(min(work.rows, room // length), 1).bit_length() - 1)
        layer = self._layer(together * length, slots, dtype, "cuda", rows=together, later=prompt > GPU_PREFILL_CHUNK)
        return room * decoder.hidden_size * dtype.itemsize + layer

    def _layer(self, tokens: int, slots: int, dtype: torch.dtype, device_type: str, *, rows: int, later: bool) -> int:
        """Bytes of a decoder layer on some tokens of as many rows, which see so many slots; ``later``: something stands
        in the cache before them."""
        attention = self._attention(tokens, slots, dtype, device_type, rows=rows, later=later)
        return tokens * 3 * self.config.decoder.hidden_size * dtype.itemsize + max(self._mlp(tokens, dtype), attention)

    def _mlp(self, tokens: int, dtype: torch.dtype) -> int:
        """The dense MLP: C x (2 D + 3 M). Routed experts: C K x (3 D + 3 I), or after the last product C K x
        (2 D + 2 I) and float32 copies of C K x D."""
        decoder, size = self.config.decoder, dtype.itemsize
        width = decoder.hidden_size
        dense = tokens * (2 * width + 3 * decoder.mlp_width) * size
        if decoder.moe is None:
            return dense
        routed, inner = tokens * decoder.moe.num_experts_per_token, decoder.moe.expert_width
        mixing = (2 * width + 2 * inner) * size + width * (4 + size % 4 * 2)
        return max(dense, routed * max((3 * width + 3 * inner) * size, mixing))

    def _attention(
        self, tokens: int, slots: int, dtype: torch.dtype, device_type: str, *, rows: int, later: bool
    ) -> int:
        """Queries, keys, values and what becomes of them, and a mask in float32. Scores are written to memory by

        * absorbed latent attention, for short pieces: float32 twice, and once in the model's type;
        * torch's attention under a mask with less heads of keys than of queries, on an accelerator (ATen's
          sdp_utils.cpp: its fast forms take the one or the other): four times in float32, keys and values repeated. On
          CUDA ``mm.language.attention`` repeats them before, and no scores are written.

        Long pieces of latent attention expand keys and values of every slot: S x heads x (nope + value) of the product,
        and two times the keys, for values are padded to their width.
        """
        attention, size = self.config.decoder.attention, dtype.itemsize
        mask = tokens * slots * 5 if later else 0
        heads = attention.num_heads
        if isinstance(attention, LatentAttentionConfig):
            head = attention.qk_nope_head_dim + attention.qk_rope_head_dim
            own = tokens * heads * 3 * head * size
            expanded = (attention.qk_nope_head_dim + attention.v_head_dim + 2 * head) * size
            longest = rows * slots * heads * expanded if tokens > rows else 0
            short = tokens if tokens == rows else min(tokens, self._absorb_limit())
            absorbed = short * heads * slots * (8 + size % 4) if later or tokens == rows else 0
            return own + mask + max(longest, absorbed)
        own = tokens * heads * attention.head_dim * 6 * size
        if attention.num_kv_heads == heads or device_type == "cpu" or not later:
            return own + mask
        repeated = 2 * rows * slots * heads * attention.head_dim * size
        return own + mask + repeated + (0 if device_type == "cuda" else tokens * heads * slots * 4 * 4)

    def _absorb_limit(self) -> int:
        """Tokens up to which latent attention is absorbed."""
        layer = self.model.decoder.model.layers[0]
        assert isinstance(layer, DecoderLayer) and isinstance(layer.self_attn, LatentAttention)
        return layer.self_attn.absorb_limit

    def _painted_width(self) -> int:
        """Widest tensor of the last two levels of what paints pictures: an image tokenizer, or SDXL's autoencoder."""
        head = self.model.image_head
        return 256 if head is None else head.vq.config.width * max(head.vq.config.decoder_multipliers[:2])

    def drawing(self, work: Workload) -> Workload:
        """A workload of pictures, of a model that draws, with what these take instead of an answer."""
        head, flow = self.model.image_head, self.model.flow_head
        if flow is not None:
            positions = flow.num_positions
        else:
            assert head is not None
            positions = head.grid[0] * head.grid[1]
        return replace(work, images=0, image_size=None, max_new_tokens=positions, batch=1)

    def peak(self, work: Workload, dtype: torch.dtype, device_type: str = "cpu") -> PeakMemory:
        """Weights, cache, kept views, activations and the process itself, in the memory of a device of this type."""
        if self.quantization is None:
            weights = self.parameters().total * dtype.itemsize
        else:
            weights = part_sizes(self.config, dtype, self.quantization).total
        if work.pictures and self.model.flow_head is not None:
            weights += AUTOENCODER_BYTES // 4 * dtype.itemsize
        activations = self.activations(work, dtype, device_type)
        on_host = HOST_OVERHEAD + bool(work.pictures) * PAINTER_OVERHEAD + min(activations, HEAP_KEPT)
        return PeakMemory(
            weights=weights,
            cache=self.cache(work, dtype),
            views=kept_bytes(weights) if work.images else 0,
            activations=activations,
            overhead=CUDA_OVERHEAD if device_type == "cuda" else on_host,
        )

    def _widened(self, dtype: torch.dtype, device_type: str) -> int:
        """Bytes of quantised weights that are made wide at once: a layer's experts, on the CPU one of them at a time,
        or a product's weights."""
        decoder = self.config.decoder
        if self.quantization is None:
            return 0
        numbers = 2 * decoder.mlp_width * decoder.hidden_size
        if decoder.moe is not None:
            experts = 3 * decoder.moe.expert_width * decoder.hidden_size
            numbers = max(numbers, experts if device_type == "cpu" else decoder.moe.num_experts * experts)
        return numbers * dtype.itemsize


def _chunk(device_type: str, bulk: bool) -> int:
    """Prompt tokens that the engine gives the decoder at once."""
    if device_type == "cuda":
        return GPU_PREFILL_CHUNK
    return CPU_BULK_CHUNK if bulk and device_type == "cpu" else PREFILL_CHUNK


def _count(module: torch.nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in module.parameters())
