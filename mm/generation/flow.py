"""The generation side of a model that draws by flow: latents into the decoder, and its hidden states to velocities.

JanusFlow (arXiv 2411.07975, section 3.1): latents are cut into patches by a convolution and go through ConvNeXt V2
blocks (arXiv 2301.00808); what comes out of the decoder is joined with these features, goes through blocks of the same
kind and is unfolded to latents. Every block is scaled and shifted by the embedded time. Parameters have their published
names. ``mm.generation.flow_picture`` says what a picture does with it.

Letters: B rows, C channels and h w of the latents, P patches of a picture, g patches a side, W channels of a block,
D hidden size.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mm.config import FlowHeadConfig
from mm.devices import exact_convolutions

NormOf = Callable[[int], nn.Module]

_EXPANSION = 4  # of the channels inside a block
_KERNEL = 7
_LONGEST_PERIOD = 10_000.0  # of the time embedding
_GRN_EPS = 1e-6


class FlowHead(nn.Module):
    """Encoder and decoder of latents and their two linear layers; ``mm.contracts.FlowHead`` says what each call does.

    Args:
        config: sizes.
        width: hidden size D of the decoder.
        norm_of: channels -> RMS norm over them, of the encoder and decoder.
        hidden_norm: what the decoder's hidden states go through first.
    """

    def __init__(self, config: FlowHeadConfig, *, width: int, norm_of: NormOf, hidden_norm: nn.Module) -> None:
        super().__init__()
        self.config = config
        side = config.grid * config.patch_size
        self.latent_shape = (config.latent_channels, side, side)
        self.num_positions = 1 + config.grid**2
        self.size = (side * config.latent_pixels, side * config.latent_pixels)
        self.encoder = _Encoder(config, width, norm_of)
        self.encoder_aligner = nn.Linear(config.width, width)
        self.decoder_aligner_norm = hidden_norm
        self.decoder_aligner = nn.Linear(width, config.width)
        self.decoder = _Decoder(config, width, norm_of)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder_aligner.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.encoder_aligner.weight.dtype

    def encode(self, latents: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, C, h, w) and time (B,) -> tokens (B, P, D), row by row; time embedding (B, D); features
        (B, W, g, g)."""
        with exact_convolutions(self.device, self.dtype):
            moment = self.encoder.time_embed(time)
            features = self.encoder(latents.to(self.dtype), moment)
        tokens: Tensor = self.encoder_aligner(features.flatten(2).transpose(1, 2))
        return tokens, moment, features

    def velocity(self, hidden: Tensor, skip: Tensor, moment: Tensor) -> Tensor:
        """Hidden states (B, P, D), features (B, W, g, g) and time embedding (B, D) -> (B, C, h, w)."""
        grid = self.config.grid
        picture = self.decoder_aligner(self.decoder_aligner_norm(hidden)).transpose(1, 2).unflatten(2, (grid, grid))
        with exact_convolutions(self.device, self.dtype):
            out: Tensor = self.decoder(picture, skip, moment)  # (B, C, h, w)
        return out


class _Encoder(nn.Module):
    """Published ``vision_gen_enc_model``."""

    def __init__(self, config: FlowHeadConfig, width: int, norm_of: NormOf) -> None:
        super().__init__()
        patch = config.patch_size
        self.time_embed = TimeEmbedding(config.width, width)
        self.in_conv = nn.Conv2d(config.latent_channels, config.width, kernel_size=patch, stride=patch)
        self.mid_block = _Blocks(config.encoder_blocks, config.width, width, norm_of)

    def forward(self, latents: Tensor, moment: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, W, g, g)."""
        out: Tensor = self.mid_block(self.in_conv(latents), moment)
        return out


class _Decoder(nn.Module):
    """Published ``vision_gen_dec_model``."""

    def __init__(self, config: FlowHeadConfig, width: int, norm_of: NormOf) -> None:
        super().__init__()
        joined = 2 * config.width
        self.input_norm = norm_of(config.width)
        self.mid_block = _Blocks(config.decoder_blocks, joined, width, norm_of)
        self.out_convs = nn.ModuleList((_Unpatchify(joined, config.latent_channels, config.patch_size, norm_of),))

    def forward(self, picture: Tensor, skip: Tensor, moment: Tensor) -> Tensor:
        """(B, W, g, g) twice -> (B, C, h, w)."""
        joined = torch.cat((_over_channels(self.input_norm, picture), skip), dim=1)  # (B, 2 W, g, g)
        out: Tensor = self.out_convs[0](self.mid_block(joined, moment))
        return out


class _Unpatchify(nn.Module):
    """Each patch to its latents."""

    def __init__(self, channels: int, out: int, patch: int, norm_of: NormOf) -> None:
        super().__init__()
        self.norm = norm_of(channels)
        self.unpatch_conv = nn.Conv2d(channels, out * patch * patch, kernel_size=1)
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, g, g) -> (B, C, h, w)."""
        return F.pixel_shuffle(self.unpatch_conv(_over_channels(self.norm, x)), self.patch)


class _Blocks(nn.Module):
    """ConvNeXt blocks, one after another."""

    def __init__(self, count: int, channels: int, width: int, norm_of: NormOf) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(ConvNextBlock(channels, width, norm_of) for _ in range(count))

    def forward(self, x: Tensor, moment: Tensor) -> Tensor:
        """(B, W, g, g) -> the same shape."""
        for block in self.res_blocks:
            x = block(x, moment)
        return x


class ConvNextBlock(nn.Module):
    """ConvNeXt V2's block with a residual, then scaled and shifted by the time."""

    def __init__(self, channels: int, width: int, norm_of: NormOf) -> None:
        super().__init__()
        inner = _EXPANSION * channels
        self.depthwise = nn.Conv2d(channels, channels, kernel_size=_KERNEL, padding=_KERNEL // 2, groups=channels)
        self.norm = norm_of(channels)
        self.channelwise_linear_1 = nn.Linear(channels, inner)
        self.channelwise_norm = GlobalResponseNorm(inner)
        self.channelwise_linear_2 = nn.Linear(inner, channels)
        self.cond_embeds_mapper = nn.Linear(width, 2 * channels)

    def forward(self, x: Tensor, moment: Tensor) -> Tensor:
        """(B, W, g, g) and the time embedding (B, D) -> (B, W, g, g)."""
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # (B, g, g, W)
        inner = self.channelwise_norm(F.gelu(self.channelwise_linear_1(inner)))
        x = x + self.channelwise_linear_2(inner).permute(0, 3, 1, 2)  # (B, W, g, g)
        scale, shift = self.cond_embeds_mapper(F.silu(moment))[..., None, None].chunk(2, dim=1)  # (B, W, 1, 1)
        return torch.addcmul(shift, x, 1 + scale)


class GlobalResponseNorm(nn.Module):
    """ConvNeXt V2's competition between channels: x * (1 + weight * n) + bias, n a channel's norm over the picture
    divided by the mean of all channels' (arXiv 2301.00808, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, g, g, W) -> the same shape."""
        norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # (B, 1, 1, W)
        relative = norms / (norms.mean(dim=-1, keepdim=True) + _GRN_EPS)
        return torch.addcmul(self.bias, self.weight * relative + 1, x)


class TimeEmbedding(nn.Module):
    """Cosines and sines of the time (arXiv 2006.11239, in float32), then linear, SiLU, linear."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.num_waves = channels // 2
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """(B,) in 0..1000 -> (B, D)."""
        steps = torch.arange(self.num_waves, dtype=torch.float32, device=time.device)
        angles = time.float()[:, None] * torch.exp(steps * (-math.log(_LONGEST_PERIOD) / self.num_waves))  # (B, W / 2)
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1).to(self.linear_1.weight.dtype)
        out: Tensor = self.linear_2(F.silu(self.linear_1(waves)))
        return out


def _over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm over the channels of (B, W, g, g)."""
    out: Tensor = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return out
