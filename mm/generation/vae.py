"""Latents to pixels with an autoencoder of diffusers' layout, which is downloaded apart from the model that flows."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm.devices import exact_convolutions
from mm.errors import ConfigError, WeightsError

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
_SILENT = 100  # above every level of Python's logging


class Autoencoder:
    """diffusers' AutoencoderKL, of which pictures need the decoder. Any thread may use it.

    Its files are checked now; diffusers and the weights are loaded when they are needed.

    Args:
        folder: with config.json and diffusion_pytorch_model.safetensors.
        channels: C of the latents that it must take.
        pixels: a side of what one latent must stand for.
        device: where its weights go.
        dtype: their type. In float16 SDXL's autoencoder overflows; then it is float32.

    Attributes:
        scale: latents are divided by it.

    Raises:
        ConfigError: it is another kind of model, or its latents are of another form.
    """

    def __init__(self, folder: Path, *, channels: int, pixels: int, device: torch.device, dtype: torch.dtype) -> None:
        self.scale = check_folder(folder, channels=channels, pixels=pixels)
        self._folder = folder
        self._device = device
        self._dtype = torch.float32 if dtype == torch.float16 else dtype
        self._network: Any = None
        self._loading = threading.Lock()

    def warm_up(self) -> None:
        """Load it.

        Raises:
            WeightsError: its weights are not complete or cannot be read.
        """
        with self._loading:
            if self._network is None:
                self._network = self._load().eval().requires_grad_(False).to(self._device)

    def _load(self) -> Any:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        try:
            with _quietly():
                network, report = AutoencoderKL.from_pretrained(
                    self._folder,
                    local_files_only=True,
                    use_safetensors=True,
                    low_cpu_mem_usage=False,
                    output_loading_info=True,
                    torch_dtype=self._dtype,
                )
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
            raise WeightsError(
                f"the autoencoder in {self._folder} cannot be loaded: {first}. Download {CONFIG} and {WEIGHTS} again"
            ) from error
        wrong = {kind: report[f"{kind}_keys"] for kind in ("missing", "unexpected") if report[f"{kind}_keys"]}
        if wrong:
            counts = ", ".join(f"{len(names)} {kind} ({names[0]}, ...)" for kind, names in wrong.items())
            raise WeightsError(
                f"{self._folder / WEIGHTS} does not belong to its {CONFIG}: {counts}. Download both again"
            )
        return network

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W) float32, about -1..1; picture by picture, so that none depends on the others.

        Raises:
            WeightsError: see ``warm_up``.
        """
        self.warm_up()
        with torch.no_grad(), exact_convolutions(self._device, self._dtype):
            scaled = latents.to(self._device, torch.float32) / self.scale
            rows = [self._network.decode(row.to(self._dtype)).sample.float() for row in scaled.split(1)]
        return torch.cat(rows)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what diffusers logs: errors say it, and in our words."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(_SILENT)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def check_folder(folder: Path, *, channels: int, pixels: int) -> float:
    """What can be said of a folder without loading it; arguments and errors as of ``Autoencoder``. Its scaling factor:
    latents are divided by it."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / CONFIG} cannot be read as JSON ({error}). Download it again") from error
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != "AutoencoderKL":
        raise ConfigError(
            f"{folder / CONFIG} describes {kind!r}; expected an AutoencoderKL such as stabilityai/sdxl-vae"
        )
    levels = config.get("block_out_channels")
    found = (config.get("latent_channels"), 2 ** (len(levels) - 1) if isinstance(levels, list) else None)
    if found != (channels, pixels):
        raise ConfigError(
            f"the autoencoder in {folder} has latents of {found[0]} channels for {found[1]} pixels a side; this model "
            f"draws latents of {channels} channels for {pixels} pixels. Use stabilityai/sdxl-vae"
        )
    scale, shift = config.get("scaling_factor"), config.get("shift_factor")
    if shift is not None or not isinstance(scale, float) or scale <= 0:
        raise ConfigError(
            f"{folder / CONFIG} has scaling_factor {scale!r} and shift_factor {shift!r}; expected a number above 0 and "
            "none. Use stabilityai/sdxl-vae"
        )
    return scale
