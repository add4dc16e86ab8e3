"""What a model needs before any of its weights are downloaded: parameters, bytes, and what would make it fit.

Everything follows from config.json and processor_config.json. The model is built on the meta device, so that parameters
and the cache are counted, not estimated; only the memory of activations is a formula (`Planner.activations`).

Letters: B rows (conversations run together), T prompt tokens, V image views encoded at once, P patches of a view,
W encoder width, D hidden size, M MLP width, K experts a token, I expert width, S cache slots.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mm.config import LatentAttentionConfig
from mm.devices import resolve_device, resolve_dtype
from mm.environment import Memory, device_memory
from mm.errors import ContextOverflowError, OptionError
from mm.families.table import (
    FAMILIES,
    build_model,
    cannot_draw,
    cannot_see,
    load_config,
    load_spec,
    published_bytes,
    unused_elements,
)
from mm.generation.text import PREFILL_CHUNK
from mm.hub import AUTOENCODER_BYTES, Checkpoint
from mm.language.moe import Experts
from mm.model import VIEWS_PER_PASS
from mm.view_cache import kept_bytes

# What a process takes beside the model. Main memory: Python with torch and timm imported, 0.86 GB measured on Linux
# with torch 2.15. CUDA: its context and the libraries' workspaces, assumed: a plan should not promise the last byte.
HOST_OVERHEAD = 900 * 10**6
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


@dataclass(frozen=True)
class Suggestion:
    """A change of the command that needs less memory."""

    flags: str
    peak_bytes: int
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer of `mm plan`."""

    model: str
    source: str
    dtype: str
    device: str
    workload: Workload
    parameters: Parameters
    download_bytes: int  # of the weight files in the published type, or of the files that are here
    autoencoder_bytes: int  # of what pictures by flow need besides, downloaded apart; 0 of other models
    weight_bytes: int
    cache_bytes_per_token: int
    image_tokens: int  # of one image
    context: int  # slots of the cache
    trained_context: int
    peak: PeakMemory
    memory: Memory
    suggestions: tuple[Suggestion, ...]

    @property
    def fits(self) -> bool:
        """Whether the peak is below what is free now."""
        return self.peak.total <= self.memory.available

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        values["peak"]["total"] = self.peak.total
        return {**values, "fits": self.fits}


class Planner:
    """Counts of one model, from its config alone.

    Raises:
        ConfigError: the config is not understood.
    """

    def __init__(self, folder: Path) -> None:
        self.config = load_config(folder)
        self.spec = load_spec(folder)
        self.model = build_model(self.config)

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

    def activations(self, work: Workload, dtype: torch.dtype) -> int:
        """Bytes of everything that is neither weight nor cache, at the worst moment (an estimate).

        Held all the time: prompt embeddings and image tokens. On top the largest of three moments, each the tensors
        that are alive together within a block, attention never materialising its scores:

        * encoder: what its config counts for V views (``block_numbers``), and the views' pixels in float32;
        * prefill of one chunk of C tokens: the dense MLP, C x (3 D + 3 M), or the routed experts, C K x (3 D + 4 I) and
          two float32 copies of C K x D; attention over S slots in float32 masks; for MLA the expanded keys and values,
          S x heads x (2 nope + rope + value);
        * choosing the next token: six rows of float32 over the vocabulary, or over the codes of pictures;
        * painting a picture: six of the decoder's widest tensors at the full size, one picture at a time. The pixels of
          all pictures in float32 are held.
        """
        decoder, vision, size = self.config.decoder, self.config.vision, dtype.itemsize
        across, down = self.grid(work)
        views = work.rows * work.images * (1 + across * down)
        slots = self.tokens(work)
        prompt = slots - work.max_new_tokens
        width = decoder.hidden_size
        held = 2 * size * width * (work.rows * prompt + views * self.spec.tokens_per_view)

        at_once = min(views, VIEWS_PER_PASS)
        encoder = vision.block_numbers(at_once) * size
        encoder += (views + at_once) * 3 * vision.image_size**2 * 4

        chunk = work.rows * min(prompt, PREFILL_CHUNK)
        mlp = chunk * (3 * width + 3 * decoder.mlp_width) * size
        if decoder.moe is not None:
            routed = chunk * decoder.moe.num_experts_per_token
            experts = routed * ((3 * width + 4 * decoder.moe.expert_width) * size + 2 * width * 4)
            mlp = max(mlp, experts)
        attention = chunk * slots * 4
        if isinstance(decoder.attention, LatentAttentionConfig):
            head = decoder.attention
            expanded = 2 * head.qk_nope_head_dim + head.qk_rope_head_dim + head.v_head_dim
            attention += work.rows * slots * head.num_heads * expanded * size
        prefill = chunk * 3 * width * size + max(mlp, attention)

        choice = work.rows * decoder.vocab_size * 6 * 4
        painting = 0
        if work.pictures:
            artist = self.model.image_head or self.model.flow_head
            assert artist is not None
            pixels = math.prod(artist.size)
            held += work.pictures * 3 * pixels * 4
            painting = 6 * pixels * self._painted_width() * size
            if self.model.image_head is not None:
                choice = work.rows * self.model.image_head.num_codes * 6 * 4
        return held + max(encoder, prefill, choice, painting)

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
        weights = self.parameters().total * dtype.itemsize
        if work.pictures and self.model.flow_head is not None:
            weights += AUTOENCODER_BYTES // 4 * dtype.itemsize
        return PeakMemory(
            weights=weights,
            cache=work.rows * self.tokens(work) * self.cache_bytes_per_token(dtype),
            views=kept_bytes(weights) if work.images else 0,
            activations=self.activations(work, dtype),
            overhead=CUDA_OVERHEAD if device_type == "cuda" else HOST_OVERHEAD,
        )


def make_plan(
    checkpoint: Checkpoint,
    work: Workload,
    *,
    device: str = "auto",
    dtype: str = "auto",
    others: tuple[Checkpoint, ...] = (),
) -> Plan:
    """Plan one model on one device.

    Args:
        checkpoint: where its config is; weights are not needed.
        work: what it is asked to do.
        device: as `mm.devices.resolve_device`.
        dtype: as `mm.devices.resolve_dtype`.
        others: models to suggest instead when this one does not fit.

    Raises:
        ConfigError: a config that is not understood.
        ContextOverflowError: the workload does not fit ``work.context``.
        OptionError: an unknown device or dtype.
        TaskError: images for a model that reads text only, or pictures of one that cannot draw.
    """
    place = resolve_device(device)
    number = resolve_dtype(dtype, place)
    planner = Planner(checkpoint.folder)
    if work.pictures:
        if not FAMILIES.load(planner.config.family).draws:
            raise cannot_draw(checkpoint.name)
        work = planner.drawing(work)
    if not FAMILIES.load(planner.config.family).sees:
        if work.images > 1 or work.image_size is not None:
            raise cannot_see(checkpoint.name)
        work = replace(work, images=0)  # one is what is planned for where nothing is said
    parameters = planner.parameters()
    peak = planner.peak(work, number, place.type)
    memory = device_memory(str(place))
    suggestions: tuple[Suggestion, ...] = ()
    if peak.total > memory.available:
        suggestions = tuple(_suggest(planner, work, number, place.type, memory, others))
    return Plan(
        model=checkpoint.name,
        source=checkpoint.source,
        dtype=str(number).removeprefix("torch."),
        device=str(place),
        workload=work,
        parameters=parameters,
        download_bytes=_weight_file_bytes(checkpoint.folder)
        or published_bytes(planner.config, parameters.in_published_files),
        autoencoder_bytes=0 if planner.model.flow_head is None else AUTOENCODER_BYTES,
        weight_bytes=peak.weights,
        cache_bytes_per_token=planner.cache_bytes_per_token(number),
        image_tokens=planner.image_tokens(work),
        context=planner.tokens(work),
        trained_context=planner.config.decoder.max_positions,
        peak=peak,
        memory=memory,
        suggestions=suggestions,
    )


def _suggest(
    planner: Planner,
    work: Workload,
    dtype: torch.dtype,
    device_type: str,
    memory: Memory,
    others: tuple[Checkpoint, ...],
) -> Iterator[Suggestion]:
    """Changes that save memory, each on top of the ones before it, until one fits; then smaller models."""

    def suggestion(flags: list[str], peak: PeakMemory) -> Suggestion:
        return Suggestion(" ".join(flags), peak.total, peak.total <= memory.available)

    flags: list[str] = []
    for flag, work, dtype in _savings(planner, work, dtype):  # noqa: B020 (each change builds on the one before)
        flags.append(flag)
        yield (best := suggestion(flags, planner.peak(work, dtype, device_type)))
        if best.fits:
            return
    # Of the same family: another one may not know these flags, or not do this task.
    family = planner.config.family
    alike = {config: other for other in reversed(others) if (config := load_config(other.folder)).family == family}
    smaller = {other.name: Planner(other.folder) for other in alike.values()}  # one of each size: base or chat
    sizes = {name: other.parameters().total for name, other in smaller.items()}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if sizes[name] < planner.parameters().total:
            yield (best := suggestion([f"--model {name}", *flags], smaller[name].peak(work, dtype, device_type)))
            if best.fits:
                return


def _savings(planner: Planner, work: Workload, dtype: torch.dtype) -> Iterator[tuple[str, Workload, torch.dtype]]:
    """Flags that save memory without another model, with what the run is after each and all before it."""
    if dtype.itemsize > torch.bfloat16.itemsize:
        dtype = torch.bfloat16
        yield "--dtype bfloat16", work, dtype
    if max(work.batch, work.pictures) > 1:
        work = replace(work, batch=1, pictures=min(work.pictures, 1))
        yield f"--{'pictures' if work.pictures else 'batch'} 1", work, dtype
    if work.images and math.prod(planner.grid(work)) > 1:
        work = replace(work, max_tiles=1)
        yield "--max-tiles 1", work, dtype
    needed = planner.tokens(replace(work, context=None))
    if work.context is not None and needed < work.context:
        yield f"--context {needed}", replace(work, context=needed), dtype


def _count(module: torch.nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in module.parameters())


def _weight_file_bytes(folder: Path) -> int:
    """Bytes of the weight files that are in the folder, 0 when there are none."""
    return sum(path.stat().st_size for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
