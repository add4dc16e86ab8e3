"""DeepSeek-VL2's config.json (arXiv 2412.10302), with the defaults of its published classes."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mm.config import DecoderConfig, PixelShuffleConfig, VisionConfig
from mm.errors import ConfigError
from mm.families.decoders import parse_deepseek
from mm.families.fields import Fields

NAME = "deepseek_vl2"
MODEL_TYPE = "deepseek_vl_v2"


@dataclass(frozen=True, kw_only=True)
class DeepseekVL2Config:
    """Everything that a DeepSeek-VL2 config.json says about the model."""

    family: ClassVar[str] = NAME
    vision: VisionConfig
    adaptor: PixelShuffleConfig
    decoder: DecoderConfig
    candidate_resolutions: tuple[tuple[int, int], ...]  # width, height in pixels


def parse_config(raw: dict[str, Any]) -> DeepseekVL2Config:
    """A published config.json -> DeepseekVL2Config. Defaults are those of the published classes.

    Raises:
        ConfigError: an unknown key in an architecture part, an unknown or contradictory value.
    """
    top = Fields(raw, "config.json", strict=False)
    top.expect("model_type", MODEL_TYPE)
    top.expect("tile_tag", "2D", default="2D")
    top.expect("global_view_pos", "head", default="head")
    resolutions = top.resolutions("candidate_resolutions", default=((384, 384),))
    image_size = resolutions[0][0]
    vision = _parse_vision(Fields(top.section("vision_config"), "vision_config"), image_size)
    adaptor = _parse_adaptor(Fields(top.section("projector_config"), "projector_config"))
    decoder = _parse_decoder(Fields(top.section("language_config"), "language_config"))
    top.finish()
    if adaptor.input_width != vision.width:
        raise ConfigError(
            f"projector_config.input_dim is {adaptor.input_width}, but vision_config.width is {vision.width}: "
            "they must agree."
        )
    if adaptor.output_width != decoder.hidden_size:
        raise ConfigError(
            f"projector_config.n_embed is {adaptor.output_width}, but language_config.hidden_size is "
            f"{decoder.hidden_size}: they must agree."
        )
    return DeepseekVL2Config(vision=vision, adaptor=adaptor, decoder=decoder, candidate_resolutions=resolutions)


def _parse_vision(fields: Fields, tile_size: int) -> VisionConfig:
    fields.expect("model_type", "vision", default="vision")
    name = fields.text("model_name", default="siglip_large_patch16_384")
    if not name.startswith("siglip"):
        raise ConfigError(f"vision_config.model_name is {name!r}; the vision encoder of DeepSeek-VL2 is a SigLIP.")
    fields.expect("class_token", False, default=False)
    fields.ignore("global_pool", "ignore_head", "num_classes", "use_checkpoint", "weight_init", "deterministic")
    fields.ignore("num_recomputing_layers")
    width = fields.integer("width", default=1024)
    # The class default is 384, which every published tile has; a folder that gives no size means its tile's.
    image_size = fields.integer("image_size", default=tile_size)
    if image_size != tile_size:
        raise ConfigError(
            f"vision_config.image_size is {image_size}, but the first of candidate_resolutions makes tiles of "
            f"{tile_size}."
        )
    config = VisionConfig(
        image_size=image_size,
        patch_size=fields.integer("patch_size", default=16),
        width=width,
        num_blocks=fields.integer("layers", default=24),
        num_heads=fields.integer("heads", default=16),
        mlp_width=int(width * fields.number("mlp_ratio", default=4.0)),
        gelu="tanh",
    )
    fields.finish()
    fields.divides("heads", config.num_heads, "width", config.width)
    if config.patch_size > config.image_size:
        raise ConfigError(
            f"vision_config.patch_size {config.patch_size} is larger than the tile of {config.image_size}."
        )
    return config


def _parse_adaptor(fields: Fields) -> PixelShuffleConfig:
    fields.expect("model_type", "mlp_projector", default="mlp_projector")
    fields.expect("projector_type", "downsample_mlp_gelu", default="downsample_mlp_gelu")
    fields.expect("token_pooling", False, default=False)
    config = PixelShuffleConfig(
        input_width=fields.integer("input_dim", default=1152),
        output_width=fields.integer("n_embed", default=2048),
        ratio=fields.integer("downsample_ratio", default=2),
        mlp_ratio=fields.integer("mlp_ratio", default=1),
        depth=fields.integer("depth", default=2),
    )
    fields.finish()
    if config.depth < 2:
        raise ConfigError(f"projector_config.depth is {config.depth}; the downsampling MLP has at least 2 layers.")
    return config


def _parse_decoder(fields: Fields) -> DecoderConfig:
    fields.expect("model_type", "deepseek_v2", default="deepseek_v2")
    # The head is there in every published file, whatever lm_head and rm_head say.
    fields.ignore("lm_head", "rm_head")
    config = parse_deepseek(fields)
    fields.finish()
    return config
