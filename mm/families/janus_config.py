"""The config.json of Janus-1.3B (arXiv 2410.13848) and Janus-Pro (arXiv 2501.17811)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mm.config import DecoderConfig, ImageHeadConfig, MLPConfig, VisionConfig, VQConfig
from mm.errors import ConfigError
from mm.families.fields import Fields
from mm.families.multi_modality import MODEL_TYPE, agree, params_of, parse_llama, parse_mlp, parse_siglip

NAME = "janus"

# GroupNorm of the VQ tokenizer, everywhere.
VQ_GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class JanusConfig:
    """Everything that a Janus config.json says about the model."""

    family: ClassVar[str] = NAME
    vision: VisionConfig
    adaptor: MLPConfig
    decoder: DecoderConfig
    image_head: ImageHeadConfig | None  # None: weights for understanding only


def parse_config(raw: dict[str, Any]) -> JanusConfig:
    """A published config.json -> JanusConfig. Defaults are those of the published classes.

    Raises:
        ConfigError: an unknown key in an architecture part, an unknown or contradictory value.
    """
    top = Fields(raw, "config.json", strict=False)
    top.expect("model_type", MODEL_TYPE)
    top.ignore("pad_token_id")
    vision = parse_siglip(params_of(top, "vision_config", model_type="vision", cls="CLIPVisionTower"))
    decoder = parse_llama(top.section("language_config"))
    hidden = decoder.hidden_size
    adaptor = parse_mlp(
        params_of(top, "aligner_config", model_type="aligner", cls="MlpProjector"),
        input_width=vision.width,
        output_width=hidden,
    )
    image_head = _parse_image_head(top, vision.image_size, hidden)
    top.finish()
    return JanusConfig(vision=vision, adaptor=adaptor, decoder=decoder, image_head=image_head)


def _parse_image_head(top: Fields, image_size: int, hidden: int) -> ImageHeadConfig:
    vq = _parse_vq(params_of(top, "gen_vision_config", model_type="gen_vision", cls="VQ-16"))
    aligner = parse_mlp(
        params_of(top, "gen_aligner_config", model_type="gen_aligner", cls="MlpProjector"),
        input_width=vq.code_width,
        output_width=hidden,
    )
    head = params_of(top, "gen_head_config", model_type="gen_head", cls="vision_head")
    agree("gen_head_config.params.n_embed", head.integer("n_embed"), "language_config.hidden_size", hidden)
    agree(
        "gen_head_config.params.image_token_size",
        head.integer("image_token_size"),
        "gen_vision_config.params.image_token_size",
        vq.num_codes,
    )
    width = head.integer("image_token_embed")
    head.finish()
    if image_size % vq.downsampling:
        raise ConfigError(
            f"vision_config.params.image_size {image_size} is no whole number of codes of {vq.downsampling} pixels."
        )
    # Pictures are drawn at the size that is understood: 384 pixels, 24 x 24 codes in every published model.
    return ImageHeadConfig(vq=vq, aligner=aligner, head_width=width, grid=image_size // vq.downsampling)


def _parse_vq(fields: Fields) -> VQConfig:
    config = VQConfig(
        num_codes=fields.integer("image_token_size", default=16384),
        code_width=fields.integer("n_embed", default=8),
        width=fields.integer("ch", default=128),
        encoder_multipliers=_multipliers(fields, "encoder_ch_mult"),
        decoder_multipliers=_multipliers(fields, "decoder_ch_mult"),
        latent_width=fields.integer("z_channels", default=256),
        num_res_blocks=fields.integer("num_res_blocks", default=2),
    )
    fields.finish()
    if config.width % VQ_GROUPS:
        raise ConfigError(f"{fields.place}.ch {config.width} is no multiple of the {VQ_GROUPS} groups of its norms.")
    agree(
        f"the length of {fields.place}.decoder_ch_mult",
        len(config.decoder_multipliers),
        "that of encoder_ch_mult",
        len(config.encoder_multipliers),
    )
    return config


def _multipliers(fields: Fields, key: str) -> tuple[int, ...]:
    found = fields.raw.get(key, [1, 1, 2, 2, 4])
    fields.ignore(key)
    if not isinstance(found, list) or not found or not all(isinstance(n, int) and n > 0 for n in found):
        raise ConfigError(f"{fields.place}.{key} is {found!r}; expected a list of whole numbers of at least 1.")
    return tuple(found)
