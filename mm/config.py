"""Frozen descriptions of the parts of a model.

Every size is required: a family's ``parse_config`` reads the published config.json once, fills in the documented class
defaults, and nothing downstream ever looks at raw JSON again.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

Quantization = Literal["int8", "fp8", "int4"]  # what large weights are kept as: ``mm.language.packing``


class Encoder(Protocol):
    """What any encoder's config says about the memory that a view takes."""

    @property
    def image_size(self) -> int:
        """Pixels a side of a view, as the processor hands it over."""
        ...

    def block_numbers(self, views: int) -> int:
        """Numbers that are alive together in the widest moment of encoding this many views at once."""
        ...


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A SigLIP tower (pre-norm ViT, no class token, biases everywhere, LayerNorm eps 1e-6).

    ``num_blocks`` is the number of blocks that run (published ``select_layer`` already applied).
    """

    image_size: int  # pixels, square
    patch_size: int  # pixels
    width: int
    num_blocks: int
    num_heads: int
    mlp_width: int
    gelu: Literal["exact", "tanh"]  # exact in DeepSeek-VL and Janus, tanh in DeepSeek-VL2

    @property
    def grid(self) -> int:
        """Patches a side (incomplete patches at the right and bottom edge are not used)."""
        return self.image_size // self.patch_size

    def block_numbers(self, views: int) -> int:
        """V views x P patches x (2 W + 2 M): a block's input and its norm, and its MLP before and after GELU; or 6 W,
        queries, keys, values and what attention gives."""
        return views * self.grid**2 * (2 * self.width + max(2 * self.mlp_width, 4 * self.width))


@dataclass(frozen=True, kw_only=True)
class PixelStatistics:
    """Mean and deviation of pixels in 0..1, a channel each."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class NormalizedVisionConfig(VisionConfig):
    """A SigLIP tower that may normalise its pixels itself (DeepSeek-VL)."""

    statistics: PixelStatistics | None  # None: they arrive normalised


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """DeepSeek-VL's high-resolution tower: SAM's encoder (arXiv 2304.02643) and two stride-2 convolutions behind its
    neck (arXiv 2403.05525, section 3.1). MLPs are four times as wide as the blocks; norms have eps 1e-6.
    """

    image_size: int  # pixels, square
    patch_size: int  # pixels
    width: int
    num_blocks: int
    num_heads: int
    window_size: int  # patches a side of a window
    global_blocks: tuple[int, ...]  # blocks that attend over all patches, in ascending order; the others in windows
    neck_width: int
    downsample_widths: tuple[int, ...]  # of the convolutions, each halves the sides
    statistics: PixelStatistics | None

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.image_size // self.patch_size


# Views of 1024 pixels that go through SAM at once: 4096 patches each fill a GPU.
HIGH_VIEWS_PER_PASS = 4
# Pairs of query and key whose position bias is in memory at once, a head: 1024 queries of one view, all of a window.
PAIRS_PER_PASS = 2**22


@dataclass(frozen=True, kw_only=True)
class HybridVisionConfig:
    """DeepSeek-VL 7B's two towers over one image. Both give ``low.grid`` x ``low.grid`` features."""

    high: SamConfig
    low: NormalizedVisionConfig

    @property
    def image_size(self) -> int:
        """Pixels a side of a view, as the high-resolution tower takes it."""
        return self.high.image_size

    def block_numbers(self, views: int) -> int:
        """SigLIP's block, or the larger of SAM's two moments: an MLP of 4 W, and an attention with its terms a query
        for each row and column of patches and the bias of one pass.
        """
        at_once = min(views, HIGH_VIEWS_PER_PASS)
        patches = self.high.grid**2
        mlp = at_once * patches * 11 * self.high.width
        pairs = min(PAIRS_PER_PASS, at_once * patches**2)
        terms = 2 * self.high.grid * self.high.num_heads
        attention = at_once * patches * (8 * self.high.width + terms) + pairs * self.high.num_heads
        return max(self.low.block_numbers(views), mlp, attention)


@dataclass(frozen=True, kw_only=True)
class SplitMLPConfig:
    """DeepSeek-VL 7B's ``low_high_hybrid_split_mlp_gelu``: half of the channels from each tower, then an MLP."""

    input_width: int  # of either tower
    output_width: int
    depth: int


@dataclass(frozen=True, kw_only=True)
class NoVisionConfig:
    """The place of an encoder in a model that reads text only."""

    @property
    def image_size(self) -> int:
        """No pixels."""
        return 0

    def block_numbers(self, views: int) -> int:
        """No numbers."""
        return 0


@dataclass(frozen=True, kw_only=True)
class PixelShuffleConfig:
    """DeepSeek-VL2's ``downsample_mlp_gelu`` adaptor: ``ratio`` x ``ratio`` patches become one token, then an MLP."""

    input_width: int
    output_width: int
    ratio: int
    mlp_ratio: int  # width of the first linear layer over output_width
    depth: int


@dataclass(frozen=True, kw_only=True)
class YarnConfig:
    """YaRN context extension (arXiv 2309.00071), with DeepSeek-V2's mscale terms."""

    factor: float
    original_max_positions: int
    beta_fast: float
    beta_slow: float
    mscale: float
    mscale_all_dim: float


@dataclass(frozen=True, kw_only=True)
class LinearScalingConfig:
    """Linear RoPE scaling: positions are divided by ``factor``."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class Llama3ScalingConfig:
    """Llama 3.1's scaling (``llama3`` in transformers): slow dimensions are divided by ``factor``, fast ones kept, and
    those between blended by how often they turn within the original context.
    """

    factor: float
    low_frequency_factor: float  # turns below which a dimension is slow
    high_frequency_factor: float  # turns above which it is fast
    original_max_positions: int


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding; ``scaling`` is None for plain RoPE."""

    theta: float
    scaling: YarnConfig | LinearScalingConfig | Llama3ScalingConfig | None


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Multi-head (or grouped-query) attention with half-split RoPE over the whole head."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool
    output_bias: bool


@dataclass(frozen=True, kw_only=True)
class LatentAttentionConfig:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""

    num_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    bias: bool  # of q_a_proj, kv_a_proj_with_mqa and o_proj

    @property
    def cache_width(self) -> int:
        """Numbers cached per token and layer: the latent and the shared rope key."""
        return self.kv_lora_rank + self.qk_rope_head_dim


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """Routed and shared experts (DeepSeekMoE, arXiv 2401.06066; noaux_tc: DeepSeek-V3, arXiv 2412.19437)."""

    num_experts: int
    num_experts_per_token: int
    expert_width: int
    num_shared_experts: int
    scoring: Literal["softmax", "sigmoid"]
    method: Literal["greedy", "group_limited_greedy", "noaux_tc"]
    num_groups: int
    num_groups_per_token: int
    normalize_weights: bool
    scaling_factor: float
    first_moe_layer: int  # layers before it are dense
    layer_frequency: int  # every n-th layer from there on is MoE


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A causal decoder: (dense | MoE) x (MHA/GQA | MLA)."""

    vocab_size: int
    hidden_size: int
    mlp_width: int
    num_layers: int
    rms_norm_eps: float
    max_positions: int
    rope: RopeConfig
    attention: AttentionConfig | LatentAttentionConfig
    moe: MoEConfig | None

    def is_moe_layer(self, index: int) -> bool:
        """Whether layer ``index`` (from 0) has routed experts."""
        moe = self.moe
        return moe is not None and index >= moe.first_moe_layer and index % moe.layer_frequency == 0


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """The ``mlp_gelu`` projector of DeepSeek-VL and Janus: ``depth`` linear layers with exact GELU between them."""

    input_width: int
    output_width: int
    depth: int


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """Janus's ``VQ-16`` image tokenizer (the VQGAN of LlamaGen, arXiv 2406.06525).

    Multipliers are widths over ``width``, one a level from the pixels down; each level but the last halves the sides.
    """

    num_codes: int
    code_width: int
    width: int
    encoder_multipliers: tuple[int, ...]
    decoder_multipliers: tuple[int, ...]
    latent_width: int
    num_res_blocks: int

    @property
    def downsampling(self) -> int:
        """Pixels a side of what one code stands for."""
        return int(2 ** (len(self.encoder_multipliers) - 1))


@dataclass(frozen=True, kw_only=True)
class ImageHeadConfig:
    """Janus's generation side: image codes into the decoder, and out of it."""

    vq: VQConfig
    aligner: MLPConfig  # code embedding -> hidden size
    head_width: int
    grid: int  # codes a side of a picture of the trained size


@dataclass(frozen=True, kw_only=True)
class FlowHeadConfig:
    """JanusFlow's generation side: latents of an autoencoder into the decoder, and velocities out of it."""

    latent_channels: int
    latent_pixels: int  # pixels a side of what one latent stands for
    patch_size: int  # latents a side of a token
    grid: int  # tokens a side of a picture of the trained size
    width: int  # channels
    encoder_blocks: int
    decoder_blocks: int
    norm_eps: float  # of the encoder's and decoder's RMS norms
