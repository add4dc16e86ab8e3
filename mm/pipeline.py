"""The Python face: a model and its processor behind plain questions and answers."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, Unpack, overload

import numpy as np
import torch
from PIL import Image

from mm.chat import task_message
from mm.config import Quantization
from mm.contracts import CancelToken, ImageHead, Inputs, MultimodalModel
from mm.devices import resolve_device, resolve_dtype
from mm.drawing import Drawer, DrawingProgress
from mm.environment import host_memory
from mm.errors import ConfigError, InputError, OptionError, TaskError
from mm.generation.engine import DEFAULT_SLOTS, Engine
from mm.generation.row import Row
from mm.generation.sampling import SamplingOptions
from mm.generation.speculation import Speculation
from mm.generation.text import CPU_BULK_CHUNK
from mm.generation.vae import Autoencoder
from mm.generation.vq import to_bytes, to_pixels
from mm.graphed import release_graphs
from mm.hub import find_autoencoder
from mm.images import ImageSource, open_image
from mm.jobs import Answering, Job
from mm.out_of_memory import explained, load_message
from mm.pictures import (
    DrawDefaults,
    Drawings,
    DrawOptions,
    Generators,
    OutputType,
    Rerank,
    as_negative_prompts,
    as_prompts,
    check_num_codes,
    check_size,
    codes_tensor,
)
from mm.preparing import DEFAULT_MAX_NEW_TOKENS, Preparing
from mm.processing.base import Processor
from mm.reply import OcrResult, Reply, TextStream
from mm.request import (
    ChatOptions,
    Images,
    Messages,
    Request,
    Settings,
    as_list,
    as_request,
    parse_options,
)
from mm.shards import weight_file_bytes
from mm.sketches import CodeSketcher, FlowSketcher, Sketcher
from mm.transforms.quantize import quantization_of
from mm.transforms.split import weight_bytes
from mm.view_cache import PromptEmbedder, ViewCache, kept_bytes
from mm.weights import Progress

# A decode step on the CPU that reads fewer bytes of weights than this runs on one thread: more do not make it faster
# (14.7 M parameters: 4.4 ms a token with one, 4.6 ms with two), and where another process uses the cores, waiting for
# each other costs far more than the step (220 to 420 ms a token with two).
SINGLE_THREAD_BYTES = 128 * 2**20
# Conversations that `chat_batch` runs together.
DEFAULT_BATCH_SIZE = 8
# `chat_batch` looks at all its images before any work. Pixels beyond this many bytes are not kept until their turn: the
# images are opened a second time then, and the memory of a batch does not grow with its length.
KEPT_PIXEL_BYTES = 256 * 2**20


class Pipeline:
    """Answers questions about images.

    Every method that runs the model takes the options of ``ChatOptions`` as keywords: ``max_new_tokens, do_sample,
    temperature, top_p, top_k, repetition_penalty, no_repeat_ngram_size, seed, stop, logprobs, detect_loops,
    speculation, speculation_window, system, max_tiles, special_tokens, official_images, constrain_boxes, cancel``.
    Answers are greedy unless a temperature above 0, a top_p or a top_k is asked for. Everything that can be refused is
    refused before any work.

    Threads may share a pipeline. On CUDA its thread records decode steps as graphs, a few milliseconds each, and torch
    has one default random generator for each device: while a graph is recorded, ``torch.randn(..., device="cuda")`` and
    its like raise a RuntimeError in other threads. Give them a ``torch.Generator`` of their own, or load with
    ``optimize=False`` (``graphs=False`` here). Pictures and answers draw their random numbers on the CPU.

    Args:
        model: a built and loaded model.
        processor: of the same checkpoint.
        name: for messages.
        folder: where the model came from, if it came from files.
        context: most tokens of prompt and answer together; None takes the length that the model was trained for.
        max_running: most conversations that run together, whatever the batch size; the rest wait for a place.
        needs_image: the model was trained with pictures only: a conversation without one is refused.
        drawing_defaults: what it draws with where a call names nothing; None: as Janus was published.
        vae: of a model that draws by flow, where its autoencoder is; see ``from_pretrained``.
        graphs: on CUDA, record decode steps as graphs and replay them; False launches each step anew, as is done with a
            model on several devices.
        bulk: only the last answer is waited for: prompts are taken in without regard to what runs, in longer pieces; on
            an accelerator images of several conversations are encoded together (``embed_many`` of the engine). A CPU
            encodes one image as fast as several.
    """

    def __init__(
        self,
        model: MultimodalModel,
        processor: Processor,
        *,
        name: str = "the model",
        folder: Path | None = None,
        context: int | None = None,
        max_running: int = DEFAULT_SLOTS,
        needs_image: bool = False,
        drawing_defaults: DrawDefaults | None = None,
        vae: str | Path | None = None,
        graphs: bool = True,
        bulk: bool = False,
    ) -> None:
        trained = model.decoder.max_positions
        if context is not None and (isinstance(context, bool) or not isinstance(context, int) or context < 1):
            raise OptionError(f"context is {context!r}; expected a whole number of 1 or more.")
        if isinstance(max_running, bool) or not isinstance(max_running, int) or max_running < 1:
            raise OptionError(f"max_running is {max_running!r}; expected a whole number of 1 or more.")
        if vae is not None and model.flow_head is None:
            raise OptionError(f"vae is {str(vae)!r}, but {name} does not draw by flow. Leave it out")
        if context is not None and context > trained:
            warnings.warn(
                f"a context of {context} is more than the {trained} positions that {name} was trained for: answers to "
                "longer prompts may be worse.",
                stacklevel=2,
            )
        self.model = model
        self.processor = processor
        self.name = name
        self.folder = folder
        self.needs_image = needs_image
        self.drawing_defaults = drawing_defaults or DrawDefaults()
        self.context = trained if context is None else context
        on_cpu = model.device.type == "cpu"
        few = on_cpu and weight_bytes(model.decoder) < SINGLE_THREAD_BYTES
        self._embedder = PromptEmbedder(model, ViewCache(kept_bytes(weight_bytes(model))))
        self.engine = Engine(
            model.decoder,
            self._embedder,
            device=model.device,
            image_head=model.image_head,
            flow_head=model.flow_head,
            num_slots=max_running,
            decode_threads=1 if few else None,
            version=self._embedder.version,
            release=self._release,
            chunk=CPU_BULK_CHUNK if bulk and on_cpu else None,
            embed_many=self._embedder.many if bulk and not on_cpu else None,
            graphs=graphs and model.placement is None,
        )
        self._preparing = Preparing(model, processor, name=name, context=self.context, needs_image=needs_image)
        self._answering = Answering(self.engine, folder, model.device, model.dtype, quantization_of(model.decoder))
        self._lock = threading.Lock()
        self._vae = vae
        self._autoencoder: Autoencoder | None = None

    def __reduce__(self) -> NoReturn:
        """Copying and pickling end here.

        Raises:
            TaskError: always.
        """
        raise TaskError(
            f"the pipeline of {self.name} cannot be copied or sent to another process: its engine is a thread. Load "
            "it there, with Pipeline.from_pretrained; several threads may share this one"
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        context: int | None = None,
        max_running: int = DEFAULT_SLOTS,
        progress: Progress | None = None,
        vae: str | Path | None = None,
        optimize: bool = True,
        quantization: Quantization | None = None,
        compile: bool = False,
        device_map: Literal["auto"] | Mapping[str, str | int | torch.device] | None = None,
    ) -> "Pipeline":
        """Load a bundled model ("nano-vl2"), a folder in the published layout, or a hub id.

        Args:
            name: which model. Bundled and local models never touch the network.
            revision: branch, tag or commit of a hub id.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto" (bfloat16 or float16 on accelerators; float32 on the CPU, bfloat16 there when float32 does not
                fit its memory), "float32", "bfloat16", "float16".
            context: see the class; beyond the trained length it works, with a warning.
            max_running: see the class.
            progress: called while weights are loaded, not while they are downloaded, with the numbers that are there
                and how many there are.
            vae: of a model that draws by flow: folder or hub id of its autoencoder, which is looked for when the first
                picture is asked for. None: the folder ``vae`` in the model's folder, else stabilityai/sdxl-vae.
            optimize: make products over the same input one, and on CUDA use kernels and graphs for decode steps. False
                runs every module as it is written: slower, for comparison and for finding faults.
            quantization: "int8" or "fp8" keeps the language model's large weights in one byte each, half of bfloat16,
                "int4" in 4.5 bits; answers change, in this order more (docs/quantization.md). None: as they are.
            compile: compile the image encoder with torch.compile when the first picture is seen, which takes some
                seconds and pays for many pictures on a GPU.
            device_map: for a model that one GPU cannot hold: "auto" spreads its layers over the visible GPUs by their
                free memory; or a device for each layer, ``{"layers.0": "cuda:0", ...}``, with "first" (encoder, token
                embeddings, what draws) and "last" (final norm, head) where these are not to be with the first and the
                last layer. The devices compute one after another, without graphs and kernels of our own.

        Raises:
            CheckpointError: no such model, or its files are not complete and right.
            OptionError: an unknown device or dtype, or one that this machine lacks; a device map that does not fit the
                model.
            ResourceError: it does not fit the memory.
        """
        from mm.families.table import drawing_defaults, find_runnable, load_processor
        from mm.transforms.optimize import load_prepared, resolve_device_map
        from mm.transforms.quantize import check_quantization
        from mm.transforms.split import check_device_map

        check_device_map(device_map, device)
        place = resolve_device(device)
        check_quantization(quantization, place)
        checkpoint = find_runnable(str(name), revision)
        places = None
        if device_map is not None:
            places = resolve_device_map(
                device_map, checkpoint.folder, name=str(name), dtype=dtype, quantization=quantization
            )
            place = places.first
        number = resolve_dtype(dtype, place)
        if dtype == "auto" and place.type == "cpu" and _is_too_large(checkpoint.folder):
            number = torch.bfloat16
            warnings.warn(f"{name} does not fit the memory in float32, so it is loaded in bfloat16.", stacklevel=2)
        processor = load_processor(checkpoint.folder)
        with explained(lambda: load_message(str(name), checkpoint.folder, place, number, quantization)):
            model = load_prepared(
                checkpoint.folder,
                device=place,
                dtype=number,
                places=places,
                optimize=optimize,
                quantization=quantization,
                compile=compile,
                progress=progress,
            )
        return cls(
            model,
            processor,
            name=str(name),
            folder=checkpoint.folder,
            context=context,
            max_running=max_running,
            needs_image=_needs_image(checkpoint.folder),
            drawing_defaults=drawing_defaults(checkpoint.folder),
            vae=vae,
            graphs=optimize,
        )

    def chat(
        self,
        images: Images = None,
        question: str | None = None,
        *,
        messages: Messages | None = None,
        **options: Unpack[ChatOptions],
    ) -> Reply:
        """Answer a question about one image, several, or none; or continue a conversation.

        Args:
            images: path, data URI, bytes, PIL image, (H, W, 3) uint8 array, a list of these, or None.
            question: what to answer. Image tags in it say where the images stand; without tags they come first.
            messages: instead of both: a conversation in the official form, with content parts, or in OpenAI's form.
            **options: see the class.

        Raises:
            InputError: images, prompt or options cannot be used, or do not fit the context.
            ResourceError: out of memory; the message says what would fit.
        """
        return self.stream(images, question, messages=messages, **options).reply

    def stream(
        self,
        images: Images = None,
        question: str | None = None,
        *,
        messages: Messages | None = None,
        **options: Unpack[ChatOptions],
    ) -> TextStream:
        """Like ``chat``, as an iterator over pieces of text; its ``reply`` is the whole answer, ``cancel()`` ends it.

        Arguments and errors are those of ``chat``; errors of the input are raised by this call, not by the iterator.
        """
        job = self._preparing.chat(Request(images=images, question=question, messages=messages), parse_options(options))
        return self._answering.stream(job)

    def complete(
        self, prompt: str, *, suffix: str | None = None, images: Images = None, **options: Unpack[ChatOptions]
    ) -> Reply:
        """Continue a raw text, without a chat template: what base checkpoints are for.

        Args:
            prompt: what stands before the continuation. With ``special_tokens="all"`` the special tokens in it are
                control tokens; else they are plain text.
            suffix: what stands after it: the model fills the gap between the two. For models trained to fill gaps.
            images: of models that see: where the image tags of the prompt stand; without tags they come first.
            **options: see the class.

        Raises:
            InputError: as in ``chat``.
            TaskError: an image for a model that reads text only, or a suffix for one that cannot fill gaps.
        """
        return self.stream_completion(prompt, suffix=suffix, images=images, **options).reply

    def stream_completion(
        self, prompt: str, *, suffix: str | None = None, images: Images = None, **options: Unpack[ChatOptions]
    ) -> TextStream:
        """Like ``complete``, as an iterator over pieces of text; see ``stream``."""
        settings = parse_options(options)
        return self._answering.stream(self._preparing.completion(prompt, suffix, as_list(images), settings))

    def chat_batch(
        self,
        requests: Sequence[Request | tuple[Images, str] | list[Any]],
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        **options: Unpack[ChatOptions],
    ) -> list[Reply]:
        """Answer several conversations; each answer is what ``chat`` would give alone.

        Args:
            requests: per conversation ``(images, question)``, a list of messages, or a ``Request`` with own options.
            batch_size: how many run together at most.
            **options: for all; see the class. A seed holds for each conversation on its own.

        Raises:
            InputError: as in ``chat``, for any of the conversations, before any work; the message says which one.
            ResourceError: out of memory; the message says what would fit.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(f"batch_size is {batch_size!r}; expected a whole number of 1 or more.")
        checked: list[tuple[Request, Settings, Job | None]] = []
        kept = 0
        for index, item in enumerate(requests):
            with _naming(index):
                request = as_request(item)
                if "cancel" in request.options:
                    raise OptionError("cancel holds for the whole batch. Pass it to chat_batch.")
                settings = parse_options({**options, **request.options})
                job = self._preparing.chat(request, settings)
            kept += job.inputs.pixels.nbytes
            checked.append((request, settings, job if kept <= KEPT_PIXEL_BYTES else None))

        def jobs() -> Iterator[Job]:
            checked.reverse()
            for index in range(len(checked)):
                request, settings, job = checked.pop()
                if job is None:
                    with _naming(index):
                        job = self._preparing.chat(request, settings)
                yield job

        return [reply for _, reply in sorted(self._answering.answers(jobs(), batch_size))]

    def ocr(self, image: ImageSource, **options: Unpack[ChatOptions]) -> OcrResult:
        """Read all text in an image, as far as the context goes unless ``max_new_tokens`` is given.

        Arguments and errors as in ``chat``.
        """
        request = Request(messages=[task_message("ocr", [image])])
        reply = self._answering.stream(
            self._preparing.chat(request, parse_options(options), default_new=self.context)
        ).reply
        lines = tuple(line.strip() for line in reply.text.splitlines() if line.strip())
        return OcrResult(text=reply.text, lines=lines, reply=reply)

    @overload
    def caption(self, images: list[ImageSource], **options: Unpack[ChatOptions]) -> list[Reply]: ...

    @overload
    def caption(self, images: ImageSource, **options: Unpack[ChatOptions]) -> Reply: ...

    def caption(self, images: ImageSource | list[ImageSource], **options: Unpack[ChatOptions]) -> Reply | list[Reply]:
        """Describe an image; for a list of images, each one on its own. Arguments and errors as in ``chat``."""
        requests = [Request(messages=[task_message("caption", [image])]) for image in as_list(images)]
        replies = self.chat_batch(requests, **options)
        return replies if isinstance(images, list) else replies[0]

    def ground(self, image: ImageSource, query: str, **options: Unpack[ChatOptions]) -> Reply:
        """Find what ``query`` names; the answer's ``boxes`` say where. Arguments and errors as in ``chat``.

        Args:
            image: where to look.
            query: what to look for, such as "the red car"; plain text.
            **options: see the class. ``constrain_boxes=True`` rules malformed boxes out.

        Raises:
            TaskError: the model's vocabulary has no markup for boxes.
        """
        self._preparing.check_boxes("ground")
        return self.chat(messages=[task_message("ground", [image], query)], **options)

    def generate_images(
        self,
        prompt: str | Sequence[str],
        *,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        num_inference_steps: int | None = None,
        generator: Generators = None,
        seed: int | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        best_of: int | None = None,
        rerank: Rerank | None = None,
        callback_on_step: Callable[[DrawingProgress], None] | None = None,
        output_type: OutputType = "pil",
        height: int | None = None,
        width: int | None = None,
        batch_size: int | None = None,
        cancel: CancelToken | None = None,
        speculation: Speculation | None = None,
        speculation_window: int | None = None,
    ) -> Drawings:
        """Draw pictures. What a picture becomes depends on its prompt, settings and seed, not on others beside it.

        Args:
            prompt: what to draw; a list draws each.
            num_images_per_prompt: pictures of each prompt.
            guidance_scale: how far to lead away from the unconditional prompt; 1 does not, and is twice as fast. None
                takes the model's own default, ``drawing_defaults``: 5 as published.
            temperature: divides the logits; 0 takes the most likely code. None takes the model's own default: 1 as
                published. This and the next two are for models that draw codes.
            top_k: sample from the k most likely codes.
            top_p: sample from the most likely codes that make up this probability, 1 from all. None takes the model's
                own default: all as published.
            num_inference_steps: for models that draw by flow: steps of a picture, 30 as published.
            generator: a ``torch.Generator`` on the CPU for each picture that is drawn, in a list; one alone serves a
                single picture, or gives each of several a seed.
            seed: instead: of the first picture of each prompt; the others have seed + 1, seed + 2, ... None takes a
                fresh one, which the result tells.
            negative_prompt: takes the place of the unconditional prompt; one for all, or a list.
            best_of: draw so many of each prompt, and return the best first.
            rerank: what judges: "self", the model's own log-likelihood of the prompt given the picture, or "clip".
            callback_on_step: called in this thread as codes come, with a ``DrawingProgress``: numbers, previews, and
                ``cancel()``. What it raises ends the run and is raised here.
            output_type: "pil", "np" (B, H, W, 3) or "pt" (B, 3, H, W), the last two float32 from 0 to 1.
            height: pixels; only what the model was trained for.
            width: likewise.
            batch_size: most pictures drawn together; None: as many as the engine takes, and the memory.
            cancel: an object with ``is_set()``; once it says True the call returns what is whole.
            speculation: "jacobi": several codes in one pass over the weights (``mm.generation.jacobi``). At temperature
                0 the same pictures; else a seed draws another one than without, of the same distribution.
            speculation_window: most codes of such a pass, 2 to 256; None is 16. A seed draws another picture with
                another window.

        Raises:
            TaskError: the model cannot draw.
            InputError: a prompt or an option cannot be used, or a prompt does not fit the context.
            CheckpointError: the autoencoder that a flow needs cannot be had or is none.
            ResourceError: out of memory, or CLIP's weights cannot be had.
        """
        check_size(width, height, trained=self.picture_size, name=self.name)
        prompts = as_prompts(prompt)
        defaults = self.drawing_defaults
        options = DrawOptions(
            num_images=num_images_per_prompt,
            guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
            temperature=defaults.temperature if temperature is None else temperature,
            top_k=top_k,
            top_p=defaults.top_p if top_p is None else top_p,
            num_inference_steps=num_inference_steps,
            seed=seed,
            generator=generator,
            best_of=best_of,
            rerank=rerank,
            output_type=output_type,
            batch_size=batch_size,
            cancel=cancel,
            speculation=speculation,
            speculation_window=speculation_window,
        )
        options.check_kind(self.name, flows=self.model.flow_head is not None)
        negative = as_negative_prompts(negative_prompt, len(prompts), options.guidance_scale)
        drawer = Drawer(
            self.engine,
            self._sketcher(),
            self.processor,
            context=self.context,
            name=self.name,
            device=self.model.device,
        )
        return drawer.draw(prompts, negative, options, callback_on_step)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels of the pictures that the model draws.

        Raises:
            TaskError: it cannot.
        """
        head = self.model.flow_head or self._image_head()
        return head.size

    def encode_image(self, image: ImageSource) -> torch.Tensor:
        """A picture's image codes (h, w) int64 on the CPU, one for each 16 x 16 pixels in published models.

        Raises:
            TaskError: the model cannot draw, so it has no codes.
            ImageError: the picture cannot be opened, its sides are no multiples of a code's, or it has more than
                ``mm.pictures.MOST_CODES`` codes.
        """
        head = self._image_head()
        picture = open_image(image)
        check_num_codes((picture.height, picture.width), head)
        with explained(
            lambda: f"out of memory while encoding {picture.width}x{picture.height} pixels. Make it smaller."
        ):
            codes = head.vq.encode(to_pixels(np.asarray(picture)))[0].cpu()
        side = head.size[0] // head.grid[0]
        return codes.reshape(picture.height // side, picture.width // side)

    def decode_image(self, codes: Any) -> Image.Image:
        """The picture of image codes: a tensor, an array or lists (h, w); of any grid, trained for one alone.

        Raises:
            TaskError: the model cannot draw.
            InputError: the codes are no rectangle of whole numbers, too many, or out of range.
        """
        head = self._image_head()
        grid = codes_tensor(codes)
        down, across = grid.shape
        with explained(lambda: f"out of memory while decoding {down} x {across} codes. Decode fewer."):
            pixels = head.vq.decode(grid.reshape(1, -1), (down, across))
        return Image.fromarray(to_bytes(pixels)[0])

    def _image_head(self) -> ImageHead:
        from mm.families.table import cannot_draw, has_no_codes

        if self.model.flow_head is not None:
            raise has_no_codes(self.name)
        if self.model.image_head is None:
            raise cannot_draw(self.name)
        return self.model.image_head

    def _sketcher(self) -> Sketcher:
        head = self.model.flow_head
        if head is None:
            return CodeSketcher(self._image_head())
        with self._lock:
            if self._autoencoder is None:
                name = None if self._vae is None else str(self._vae)
                self._autoencoder = Autoencoder(
                    find_autoencoder(name, self.folder),
                    channels=head.latent_shape[0],
                    pixels=head.size[0] // head.latent_shape[1],
                    device=self.model.device,
                    dtype=self.model.dtype,
                )
            return FlowSketcher(head, self._autoencoder)

    def new_row(
        self,
        inputs: Inputs,
        options: SamplingOptions,
        *,
        default_new: int = DEFAULT_MAX_NEW_TOKENS,
        constrain_boxes: bool = False,
    ) -> Row | None:
        """What ``engine.submit`` takes beside a prompt: a fresh answer; None where the two do not fit the context.

        Args:
            inputs: the prompt.
            options: of the answer.
            default_new: longest answer where the options name none, clamped to what the context has left.
            constrain_boxes: rule malformed boxes out.
        """
        return self._preparing.new_row(inputs, options, default_new=default_new, constrain_boxes=constrain_boxes)

    def _release(self) -> None:
        """Gives back what is kept to save time, when memory is short."""
        self._embedder.views.clear()
        if isinstance(self.model, torch.nn.Module):
            release_graphs(self.model)

    def weights_changed(self) -> None:
        """Tell that the weights have changed through ``parameter.data``, as merging LoRA weights does, which torch does
        not count. Nothing that was computed before is used for later requests. After other changes (an optimizer's
        step, ``load_state_dict``, operations in place) this happens by itself."""
        self._embedder.weights_changed()


@contextmanager
def _naming(index: int) -> Iterator[None]:
    """What is wrong inside is wrong with this conversation of a batch."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"conversation {index}: {error}") from error


def _needs_image(folder: Path) -> bool:
    """``needs_image`` of the folder's generation_config.json, False where it says nothing of it.

    Raises:
        ConfigError: not a JSON object, or the key is not true or false.
    """
    from mm.families.table import read_json

    path = folder / "generation_config.json"
    value = read_json(path).get("needs_image", False) if path.is_file() else False
    if not isinstance(value, bool):
        raise ConfigError(f"{path} has needs_image {value!r}; expected true or false. Correct it, or leave it out.")
    return value


def _is_too_large(folder: Path) -> bool:
    """Whether the weights, stored in two bytes each, do not fit this machine's memory in four."""
    return 2 * weight_file_bytes(folder) > host_memory().available
