"""The config.json of DeepSeek-VL 1.3B and 7B, base and chat (arXiv 2403.05525)."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from mm.config import (
    DecoderConfig,
    HybridVisionConfig,
    MLPConfig,
    NormalizedVisionConfig,
    PixelStatistics,
    SamConfig,
    SplitMLPConfig,
)
from mm.errors import ConfigError
from mm.families.fields import Fields
from mm.families.multi_modality import MODEL_TYPE, agree, params_of, parse_llama, parse_mlp, parse_siglip

NAME = "deepseek_vl"
SPLIT = "low_high_hybrid_split_mlp_gelu"
# SAM-B as published: patches a side of a window, and pixels a side of a patch. No key of a config changes them.
WINDOW, PATCH = 14, 16


@dataclass(frozen=True, kw_only=True)
class DeepseekVLConfig:
    """Everything that a DeepSeek-VL config.json says about the model."""

    family: ClassVar[str] = NAME
    vision: NormalizedVisionConfig | HybridVisionConfig
    adaptor: MLPConfig | SplitMLPConfig
    decoder: DecoderConfig

    @property
    def low(self) -> NormalizedVisionConfig:
        """The SigLIP tower, which every model has."""
        return self.vision.low if isinstance(self.vision, HybridVisionConfig) else self.vision

    @property
    def normalizes(self) -> bool:
        """Whether a tower normalises its pixels."""
        towers = (self.vision.high, self.vision.low) if isinstance(self.vision, HybridVisionConfig) else (self.vision,)
        return any(tower.statistics is not None for tower in towers)


def parse_config(raw: dict[str, Any]) -> DeepseekVLConfig:
    """A published config.json -> DeepseekVLConfig. Defaults are those of the published classes.

    Raises:
        ConfigError: an unknown key in an architecture part, an unknown or contradictory value.
    """
    top = Fields(raw, "config.json", strict=False)
    top.expect("model_type", MODEL_TYPE)
    top.ignore("pad_token_id")
    cls = Fields(top.section("vision_config"), "vision_config").choice("cls", ("CLIPVisionTower", "HybridVisionTower"))
    tower = params_of(top, "vision_config", model_type="vision", cls=cls)
    decoder = parse_llama(top.section("language_config"))
    aligner = params_of(top, "aligner_config", model_type="aligner", cls="MlpProjector")
    vision: NormalizedVisionConfig | HybridVisionConfig
    adaptor: MLPConfig | SplitMLPConfig
    if cls == "HybridVisionTower":
        vision = _parse_hybrid(tower)
        adaptor = _parse_split(aligner, vision, decoder.hidden_size)
    else:
        vision = _parse_low(tower)
        adaptor = parse_mlp(aligner, input_width=vision.width, output_width=decoder.hidden_size)
    top.finish()
    return DeepseekVLConfig(vision=vision, adaptor=adaptor, decoder=decoder)


def _parse_hybrid(fields: Fields) -> HybridVisionConfig:
    fields.expect("concat_type", "tuple")
    fields.ignore("freeze_high", "freeze_low")
    low = _parse_low(Fields(fields.section("low_res_cfg"), f"{fields.place}.low_res_cfg"))
    high = _parse_high(Fields(fields.section("high_res_cfg"), f"{fields.place}.high_res_cfg"))
    fields.finish()
    if high.image_size < low.image_size:
        raise ConfigError(
            f"{fields.place}.high_res_cfg.image_size {high.image_size} is smaller than low_res_cfg.image_size "
            f"{low.image_size}."
        )
    return HybridVisionConfig(high=high, low=low)


def _parse_low(fields: Fields) -> NormalizedVisionConfig:
    fields.ignore("ckpt_path")
    statistics = _parse_statistics(fields)
    output = fields.optional_integer("output_dim", default=None)
    config = NormalizedVisionConfig(**asdict(parse_siglip(fields)), statistics=statistics)
    if output is not None:
        agree(f"{fields.place}.output_dim", output, "the tower's width", config.width)
    return config


def _parse_high(fields: Fields) -> SamConfig:
    fields.expect("model_name", "sam_b_downsample")
    fields.expect("select_feature", "same", default="same")
    fields.ignore("ckpt_path", "select_layer")  # SAM's last block is taken whatever select_layer says
    blocks = fields.integer("layers", default=12)
    config = SamConfig(
        image_size=fields.integer("image_size", default=1024),
        patch_size=PATCH,
        width=fields.integer("width", default=768),
        num_blocks=blocks,
        num_heads=fields.integer("heads", default=12),
        window_size=WINDOW,
        global_blocks=_whole_numbers(fields, "global_attn_indexes", (2, 5, 8, 11), least=0),
        neck_width=fields.integer("prompt_embed_dim", default=256),
        downsample_widths=_whole_numbers(fields, "downsample_channels", (512, 1024), least=1),
        statistics=_parse_statistics(fields),
    )
    output = fields.optional_integer("output_dim", default=None)
    fields.finish()
    fields.divides("heads", config.num_heads, "width", config.width)
    if config.image_size % PATCH:
        raise ConfigError(f"{fields.place}.image_size {config.image_size} is no multiple of the patches of {PATCH}.")
    places = config.global_blocks
    if list(places) != sorted(set(places)) or places[-1] >= blocks:
        raise ConfigError(
            f"{fields.place}.global_attn_indexes is {list(places)}; expected blocks below {blocks} in ascending order."
        )
    if output is not None:
        agree(f"{fields.place}.output_dim", output, "the last of downsample_channels", config.downsample_widths[-1])
    return config


def _parse_split(fields: Fields, vision: HybridVisionConfig, hidden: int) -> SplitMLPConfig:
    shape = parse_mlp(fields, input_width=vision.low.width, output_width=hidden, projector_type=SPLIT)
    high = vision.high.downsample_widths[-1]
    agree(f"{fields.place}.input_dim", shape.input_width, "the width of the high-resolution tower", high)
    fields.divides("the number of towers", 2, "n_embed", shape.output_width)
    return SplitMLPConfig(input_width=shape.input_width, output_width=shape.output_width, depth=shape.depth)


def _parse_statistics(fields: Fields) -> PixelStatistics | None:
    """Both of ``pixel_mean`` and ``pixel_std``, or neither: then pixels arrive normalised."""
    mean, std = (_colour(fields, key) for key in ("pixel_mean", "pixel_std"))
    if mean is None and std is None:
        return None
    if mean is None or std is None or min(std) <= 0:
        raise ConfigError(
            f"{fields.place} has pixel_mean {mean} and pixel_std {std}; expected both (deviations above 0) or neither."
        )
    return PixelStatistics(mean=mean, std=std)


def _colour(fields: Fields, key: str) -> tuple[float, float, float] | None:
    found = fields.raw.get(key)
    fields.ignore(key)
    if found is None:
        return None
    numbers = isinstance(found, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in found)
    if not numbers or len(found) != 3 or not all(0 <= n <= 1 for n in found):
        raise ConfigError(f"{fields.place}.{key} is {found!r}; expected three numbers within 0..1.")
    red, green, blue = (float(n) for n in found)
    return red, green, blue


def _whole_numbers(fields: Fields, key: str, default: tuple[int, ...], *, least: int) -> tuple[int, ...]:
    found = fields.raw.get(key, list(default))
    fields.ignore(key)
    right = isinstance(found, list) and found
    if not right or not all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in found):
        raise ConfigError(f"{fields.place}.{key} is {found!r}; expected a list of whole numbers of at least {least}.")
    return tuple(found)
