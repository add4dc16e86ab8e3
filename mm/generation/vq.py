"""Janus's image tokenizer: pixels to codes of a codebook and back (VQ-16 of LlamaGen, arXiv 2406.06525, section 2.1).

The parameters have their published names and exist without diffusers, so that a model loads, answers and is saved
without importing it. diffusers' encoder and decoder, which run them, are imported when the first picture is encoded or
decoded; they hold no weights of their own.

Letters: B pictures, H W pixels down and across, h w codes down and across, N = h * w codes, C code width, K codes.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import VQConfig
from mm.devices import exact_convolutions
from mm.errors import ImageError, InputError

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import Decoder, Encoder

Shape = tuple[int, ...]
# Where a parameter is held, its name there, the parameter, and where its numbers are.
_Bound = list[tuple[dict[str, nn.Parameter | None], str, nn.Parameter, int]]


class VQTokenizer(nn.Module):
    """The published ``gen_vision_model``; its parameters have the published names.

    The codebook is used with rows of length 1. The rows are normalised where they are used, so that they are right
    while the codebook is trained too, and ``save_pretrained`` writes what was loaded.
    """

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.path: Callable[[Tensor], Tensor] | None = None  # of one picture; see mm.transforms.towers
        for name, shape in _tensors(config):
            _register(self, name, nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles make networks of their own."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("_networks", "_bound")}
        return {**kept, "path": None}

    def reset_parameters(self) -> None:
        """Fresh weights: torch's defaults for convolutions, ones for norms, uniform within 1 / K for the codebook."""
        for name, parameter in self.named_parameters():
            if name == "quantize.embedding.weight":
                nn.init.uniform_(parameter, -1 / self.config.num_codes, 1 / self.config.num_codes)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 1:
                nn.init.ones_(parameter)
            else:
                nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in -1..1, on any device -> codes (B, N) int64, row by row.

        Picture after picture, so that the codes of one do not depend on the others.

        Raises:
            ImageError: H or W is no multiple of the pixels a side of a code.
        """
        side = self.config.downsampling
        height, width = pixels.shape[-2:]
        if height % side or width % side or not height or not width:
            raise ImageError(
                f"a picture of {width}x{height} pixels has no whole number of codes of {side}x{side}. Resize it to "
                f"multiples of {side}"
            )
        with self._exactly():
            rows = [self.nearest(self.latents(picture)).flatten(1) for picture in pixels.split(1)]
        return torch.cat(rows)

    def decode(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        """Codes (B, N) of a grid (h, w), row by row -> pixels (B, 3, H, W) float32, about -1..1.

        Picture after picture, so that the bytes of one do not depend on the others.

        Raises:
            InputError: codes out of range, or another number of codes than the grid has.
        """
        height, width = grid
        if codes.ndim != 2 or codes.shape[1] != height * width:
            raise InputError(
                f"codes of shape {tuple(codes.shape)} do not fill a grid of {height} x {width}: expected "
                f"(pictures, {height * width})"
            )
        check_codes(codes, self.config.num_codes)
        with self._exactly():
            book = self.codebook()
            vectors = book[codes.to(book.device).long()].unflatten(1, grid)  # (B, h, w, C)
            rows = [self.paint(picture).float() for picture in vectors.split(1)]
        return torch.cat(rows)

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """No gradients, and float32 convolutions in float32 on every device."""
        weight = self.get_parameter("quant_conv.weight")
        with torch.no_grad(), exact_convolutions(weight.device, weight.dtype):
            yield

    def latents(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in -1..1 -> vectors of length 1 (B, h, w, C), before they are moved to the codebook."""
        encoder, _ = self.networks()
        weight = self.get_parameter("quant_conv.weight")
        hidden = encoder(pixels.to(weight.device, weight.dtype))
        vectors = F.conv2d(hidden, weight, self.get_parameter("quant_conv.bias"))  # (B, C, h, w)
        return F.normalize(_wide(vectors), dim=1).permute(0, 2, 3, 1)

    def codebook(self) -> Tensor:
        """(K, C) rows of length 1, float32 or wider, so that the nearest is found in bf16 models too."""
        return F.normalize(_wide(self.get_parameter("quantize.embedding.weight")), dim=-1)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Vectors of length 1 (..., C) -> the codes (...) int64 of the nearest rows; of equals the first."""
        return (vectors @ self.codebook().T).argmax(dim=-1)

    def paint(self, vectors: Tensor) -> Tensor:
        """Rows of the codebook (B, h, w, C) -> pixels (B, 3, H, W), about -1..1."""
        if self.path is not None and vectors.is_cuda and len(vectors) == 1 and not torch.is_grad_enabled():
            return self.path(vectors)
        return self.paint_plainly(vectors)

    def paint_plainly(self, vectors: Tensor) -> Tensor:
        """``paint`` through the modules."""
        _, decoder = self.networks()
        weight = self.get_parameter("post_quant_conv.weight")
        picture = vectors.permute(0, 3, 1, 2).contiguous().to(weight.dtype)  # (B, C, h, w)
        hidden = F.conv2d(picture, weight, self.get_parameter("post_quant_conv.bias"))
        pixels: Tensor = decoder(hidden)
        return pixels

    def networks(self) -> "tuple[Encoder, Decoder]":
        """diffusers' encoder and decoder over this module's parameters as they are now.

        A view belongs to the graph of the pass that it is made in. The old one goes first: while it lives, its
        parameter's gradient is accumulated where it was made, on whichever stream that was, and a CUDA graph that is
        captured on another one fails. Where nothing is trained and nothing has changed, nothing is done: to go through
        all parameters takes longer than a GPU takes for a picture.
        """
        if "_networks" not in self.__dict__:
            # Not as submodules: their parameters are this module's.
            self.__dict__["_networks"] = _build_networks(self.config)
        encoder, decoder = self.__dict__["_networks"]
        known: _Bound = self.__dict__.get("_bound", [])
        if known and all(
            place[leaf] is parameter and parameter.data_ptr() == start and not parameter.requires_grad
            for place, leaf, parameter, start in known
        ):
            return encoder, decoder
        bound: _Bound = []
        for part, network in (("encoder", encoder), ("decoder", decoder)):
            for name, parameter in self.get_submodule(part).named_parameters():
                holder, _, leaf = f"{part}.{name}".rpartition(".")
                bound.append((self.get_submodule(holder)._parameters, leaf, parameter, parameter.data_ptr()))
                owner, _, leaf = _diffusers_name(part, name).rpartition(".")
                module = network.get_submodule(owner)
                old = module._parameters[leaf]
                assert old is not None
                if parameter.shape == old.shape:
                    module._parameters[leaf] = parameter
                    continue
                # A 1 x 1 convolution is diffusers' linear layer.
                # Not by its grad_fn: of a view made without gradients, whose base changed since, torch refuses to tell.
                shape, has_graph = old.shape, old.requires_grad
                del old
                if has_graph:  # no thread but the training one is here
                    module._parameters[leaf] = None
                module._parameters[leaf] = parameter.view(shape)
        self.__dict__["_bound"] = bound
        return encoder, decoder


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_codes(codes: Tensor, num_codes: int) -> None:
    """Refuse what is no code, before an index error on a device ends the process.

    Raises:
        InputError: an element is out of 0..num_codes - 1, or no whole number.
    """
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise InputError(f"codes are of type {codes.dtype}; expected whole numbers from 0 to {num_codes - 1}")
    wrong = codes[(codes < 0) | (codes >= num_codes)]
    if wrong.numel():
        raise InputError(
            f"{wrong.numel()} of {codes.numel()} codes are out of range, {int(wrong[0])} for example; expected whole "
            f"numbers from 0 to {num_codes - 1}. Codes of another model mean nothing here"
        )


def to_pixels(picture: npt.NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) bytes -> (1, 3, H, W) float32: x / 255 * 2 - 1, as published."""
    values = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float()  # (1, 3, H, W)
    return values / 255 * 2 - 1


def to_bytes(pixels: Tensor) -> npt.NDArray[np.uint8]:
    """(B, 3, H, W) about -1..1 -> (B, H, W, 3) bytes: clipped and truncated, as published."""
    values = ((pixels.float() + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
    pictures: npt.NDArray[np.uint8] = values.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pictures


def _tensors(config: VQConfig) -> Iterator[tuple[str, Shape]]:
    """Published name and shape of every parameter."""
    latent, code = config.latent_width, config.code_width
    yield "quantize.embedding.weight", (config.num_codes, code)
    yield from _conv("quant_conv", latent, code, kernel=1)
    yield from _conv("post_quant_conv", code, latent, kernel=1)
    widths = [config.width * multiplier for multiplier in config.encoder_multipliers]
    yield from _conv("encoder.conv_in", 3, config.width)
    yield from _levels("encoder", config.width, widths, config.num_res_blocks, "downsample", attended=len(widths) - 1)
    yield from _middle("encoder", widths[-1])
    yield from _norm("encoder.norm_out", widths[-1])
    yield from _conv("encoder.conv_out", widths[-1], latent)
    widths = [config.width * multiplier for multiplier in reversed(config.decoder_multipliers)]
    yield from _conv("decoder.conv_in", latent, widths[0])
    yield from _middle("decoder", widths[0])
    yield from _levels("decoder", widths[0], widths, config.num_res_blocks + 1, "upsample", attended=0)
    yield from _norm("decoder.norm_out", widths[-1])
    yield from _conv("decoder.conv_out", widths[-1], 3)


def _levels(
    part: str, width: int, widths: list[int], blocks: int, resample: str, *, attended: int
) -> Iterator[tuple[str, Shape]]:
    """Levels of one part; the lowest has attention, and all but the last change the sides."""
    for level, out in enumerate(widths):
        prefix = f"{part}.conv_blocks.{level}"
        for block in range(blocks):
            yield from _residual(f"{prefix}.res.{block}", width, out)
            width = out
            if level == attended:
                yield from _attention(f"{prefix}.attn.{block}", out)
        if level < len(widths) - 1:
            yield from _conv(f"{prefix}.{resample}.conv", out, out)


def _middle(part: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _residual(f"{part}.mid.0", width, width)
    yield from _attention(f"{part}.mid.1", width)
    yield from _residual(f"{part}.mid.2", width, width)


def _residual(name: str, width: int, out: int) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{name}.norm1", width)
    yield from _conv(f"{name}.conv1", width, out)
    yield from _norm(f"{name}.norm2", out)
    yield from _conv(f"{name}.conv2", out, out)
    if width != out:
        yield from _conv(f"{name}.nin_shortcut", width, out, kernel=1)


def _attention(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{name}.norm", width)
    for projection in ("q", "k", "v", "proj_out"):
        yield from _conv(f"{name}.{projection}", width, width, kernel=1)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _conv(name: str, width: int, out: int, *, kernel: int = 3) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, width, kernel, kernel)
    yield f"{name}.bias", (out,)


def _register(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Put a parameter under a dotted name."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(leaf, parameter)


def _build_networks(config: VQConfig) -> "tuple[Encoder, Decoder]":
    """diffusers' two halves of a VQModel, without memory."""
    from diffusers.models.attention_processor import Attention
    from diffusers.models.autoencoders.vae import Decoder, Encoder

    levels = len(config.encoder_multipliers) - 1
    with torch.device("meta"):
        encoder = Encoder(
            in_channels=3,
            out_channels=config.latent_width,
            down_block_types=("DownEncoderBlock2D",) * levels + ("AttnDownEncoderBlock2D",),
            block_out_channels=tuple(config.width * multiplier for multiplier in config.encoder_multipliers),
            layers_per_block=config.num_res_blocks,
            double_z=False,
        )
        decoder = Decoder(
            in_channels=config.latent_width,
            out_channels=3,
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(config.width * multiplier for multiplier in config.decoder_multipliers),
            layers_per_block=config.num_res_blocks,
        )
    for network in (encoder, decoder):
        for module in network.modules():
            if isinstance(module, Attention):
                module.register_forward_hook(_keep_layout)
    return encoder.eval(), decoder.eval()


def _keep_layout(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """diffusers' attention returns channels-last pictures whatever it is given, and all that follow are. On the CPU
    torch's group norm sums these less exactly: 1e-4 off at 384 pixels instead of 1e-5.
    """
    return output.contiguous() if inputs[0].is_contiguous() else output


_RENAMED = {
    "res": "resnets",
    "attn": "attentions",
    "downsample": "downsamplers.0",
    "upsample": "upsamplers.0",
    "nin_shortcut": "conv_shortcut",
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    "norm_out": "conv_norm_out",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def _diffusers_name(part: str, name: str) -> str:
    """The name in diffusers' encoder or decoder of a published parameter of that part."""
    first, *rest = name.split(".")
    renamed = [_RENAMED.get(piece, piece) for piece in rest]
    if first == "conv_blocks":
        return ".".join(("down_blocks" if part == "encoder" else "up_blocks", *renamed))
    if first == "mid":
        return ".".join(("mid_block", _MIDDLE[rest[0]], *renamed[1:]))
    return ".".join((_RENAMED.get(first, first), *rest))
