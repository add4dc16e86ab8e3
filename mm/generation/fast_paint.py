"""The image tokenizer's decoder with the kernels of ``mm.generation.paint_kernels``: the function of diffusers' one.

Same weights, another order of launches: pictures lie channels-last, so that convolutions read them as they are; norm
and activation are one pass; the bias of a convolution is added by what follows it; a whole picture is one CUDA graph.

Letters: h w codes down and across, P pixels of a level, C channels.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import VQConfig
from mm.generation import paint_kernels as kernels


class FastPaint:
    """Rows of the codebook to pixels, one picture at a time.

    Args:
        tokenizer: with the published parameter names, on CUDA.
        config: sizes.
    """

    def __init__(self, tokenizer: nn.Module, config: VQConfig) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._weights: dict[str, Tensor] = {}

    @staticmethod
    def suits(config: VQConfig) -> bool:
        """Whether the kernels take these sizes."""
        widths = [config.width * multiplier for multiplier in config.decoder_multipliers]
        return all(width >= kernels.GROUPS and not width & (width - 1) for width in widths)

    def __call__(self, vectors: Tensor) -> Tensor:
        """(1, h, w, code width) -> pixels (1, 3, H, W), about -1..1."""
        _, height, width, _ = vectors.shape
        self._weights = dict(self._tokenizer.named_parameters())
        levels, blocks = len(self._config.decoder_multipliers), self._config.num_res_blocks + 1
        x = self._pointwise("post_quant_conv", vectors.flatten(0, 2).to(self._weights["post_quant_conv.bias"].dtype))
        x = self._conv("decoder.conv_in", x, height, width, biased=True)
        x = self._residual("decoder.mid.0", x, height, width)
        x = self._attention("decoder.mid.1", x)
        x = self._residual("decoder.mid.2", x, height, width)
        for level in range(levels):
            for block in range(blocks):
                x = self._residual(f"decoder.conv_blocks.{level}.res.{block}", x, height, width)
                if level == 0:
                    x = self._attention(f"decoder.conv_blocks.{level}.attn.{block}", x)
            if level < levels - 1:
                x = kernels.doubled(x, height, width)
                height, width = 2 * height, 2 * width
                x = self._conv(f"decoder.conv_blocks.{level}.upsample.conv", x, height, width, biased=True)
        x = self._conv("decoder.conv_out", self._normed("decoder.norm_out", x), height, width, biased=True)
        return _picture(x, height, width).contiguous()

    def _residual(self, name: str, x: Tensor, height: int, width: int) -> Tensor:
        """(P, C) -> (P, C')."""
        hidden = self._conv(f"{name}.conv1", self._normed(f"{name}.norm1", x), height, width)
        hidden = self._normed(f"{name}.norm2", hidden, self._weights[f"{name}.conv1.bias"])
        hidden = self._conv(f"{name}.conv2", hidden, height, width)
        if f"{name}.nin_shortcut.weight" in self._weights:
            x = self._pointwise(f"{name}.nin_shortcut", x)
        return kernels.add_shifted(x, hidden, self._weights[f"{name}.conv2.bias"])

    def _attention(self, name: str, x: Tensor) -> Tensor:
        """One head over all pixels; (P, C) -> (P, C)."""
        normed = self._normed(f"{name}.norm", x, act=False)
        query, key, value = (self._pointwise(f"{name}.{part}", normed) for part in "qkv")
        weights = (query @ key.T * x.shape[1] ** -0.5).softmax(dim=-1)
        return x + self._pointwise(f"{name}.proj_out", weights @ value)

    def _normed(self, name: str, x: Tensor, shift: Tensor | None = None, *, act: bool = True) -> Tensor:
        return kernels.norm_silu(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], shift, act=act)

    def _pointwise(self, name: str, x: Tensor) -> Tensor:
        """A 1 x 1 convolution."""
        out: Tensor = F.linear(x, self._weights[f"{name}.weight"].flatten(1), self._weights[f"{name}.bias"])
        return out

    def _conv(self, name: str, x: Tensor, height: int, width: int, *, biased: bool = False) -> Tensor:
        """A 3 x 3 convolution (P, C) -> (P, C')."""
        bias = self._weights[f"{name}.bias"] if biased else None
        return _flat(F.conv2d(_picture(x, height, width), self._weights[f"{name}.weight"], bias, padding=1))


def _picture(x: Tensor, height: int, width: int) -> Tensor:
    """(P, C) -> (1, C, H, W), channels-last."""
    grid: Tensor = x.unflatten(0, (1, height, width))
    return grid.permute(0, 3, 1, 2)


def _flat(picture: Tensor) -> Tensor:
    """(1, C, H, W) -> (P, C)."""
    return picture.permute(0, 2, 3, 1).contiguous().flatten(0, 2)
