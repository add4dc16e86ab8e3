"""Models of published sizes with random weights behind ``Pipeline``'s public calls: time does not depend on values."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mm import Pipeline
from mm.chat import Message
from mm.contracts import DrawingPrompt, Inputs
from mm.families.table import build_model, load_config
from mm.hub import find_config
from mm.model import VisionLanguageModel
from mm.transforms.optimize import prepare
from mm.transforms.towers import use_tower_kernels


def random_model(
    folder: Path, device: torch.device, dtype: torch.dtype, *, layers: int | None = None
) -> VisionLanguageModel:
    """The sizes of a model's config, weights drawn on the device: N(0, 0.02), norms 1, biases 0.

    Args:
        folder: with the config.
        device: where; "meta" draws nothing.
        dtype: of the weights.
        layers: leave out all layers of the decoder but the first ones, for checks.
    """
    with torch.device("meta"):
        model = build_model(load_config(folder))
    if layers is not None:
        model.decoder.model.layers = model.decoder.model.layers[:layers]
    if device.type == "meta":
        return model.to(dtype)
    model = model.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return model.eval().requires_grad_(False)


class RandomTokenizer:
    """The part of a tokenizer that an answer needs: no token ends it, and each is one letter."""

    eos_id = -1
    special_ids: frozenset[int] = frozenset()
    hidden_ids: frozenset[int] = frozenset()
    special_tokens: tuple[str, ...] = ()

    def decode(self, ids: Sequence[int]) -> str:
        """A letter for each token."""
        return "a" * len(ids)


@dataclass(frozen=True)
class RandomSpec:
    """The part of a processor's settings that is asked for."""

    tokens_per_view: int = 0
    image_token: str = "<image>"


class RandomProcessor:
    """Prompts of random tokens, a function of the question's text: equal texts are equal prompts.

    Args:
        vocab_size: tokens to draw from.
        tokens: of every prompt.
        drawing_tokens: of a prompt to draw.
    """

    spec = RandomSpec()
    tokenizer = RandomTokenizer()

    def __init__(self, vocab_size: int, tokens: int = 1536, drawing_tokens: int = 48) -> None:
        self.vocab_size = vocab_size
        self.tokens = tokens
        self.drawing_tokens = drawing_tokens

    def process(self, messages: Sequence[Message], **_: Any) -> Inputs:
        """The prompt of a conversation."""
        text = "".join(str(message) for message in messages)
        ids = self._ids(text, self.tokens)
        return Inputs(
            input_ids=ids,
            image_mask=torch.zeros(len(ids), dtype=torch.bool),
            pixels=torch.zeros(0, 3, 1, 1),
            tile_grids=torch.zeros(0, 2, dtype=torch.int64),
            spans=(),
            prompt=text,
        )

    def drawing_prompt(self, prompt: str, negative_prompt: str | None = None) -> DrawingPrompt:
        """The pair of prompts of a picture."""
        away = f"away from {negative_prompt} in {prompt}"
        return DrawingPrompt(
            conditional=self._ids(prompt, self.drawing_tokens),
            unconditional=self._ids(away, self.drawing_tokens),
            text=prompt,
        )

    def num_image_tokens(self, *_: Any, **__: Any) -> int:
        """None: there are no images."""
        return 0

    def _ids(self, text: str, tokens: int) -> torch.Tensor:
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(self.vocab_size, (tokens,), generator=generator)


def random_pipeline(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    tokens: int = 1536,
    fast: bool = True,
    layers: int | None = None,
    vae: str | None = None,
) -> Pipeline:
    """A pipeline of a published model's sizes.

    Args:
        name: of the model; its config is part of the package.
        device: where.
        dtype: of the weights.
        tokens: of every prompt.
        fast: as ``Pipeline.from_pretrained(optimize=...)``.
        layers: see ``random_model``.
        vae: folder of the autoencoder of a model that draws by flow.
    """
    model = random_model(find_config(name).folder, device, dtype, layers=layers)
    if fast:
        prepare(model.decoder)
        use_tower_kernels(model)
    processor: Any = RandomProcessor(model.decoder.vocab_size, tokens)
    return Pipeline(model, processor, name=name, graphs=fast, vae=vae)


def write_random_autoencoder(folder: Path) -> None:
    """An autoencoder of SDXL's sizes with fresh weights, as diffusers writes it."""
    from diffusers import AutoencoderKL

    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.13025,
    ).save_pretrained(folder)
