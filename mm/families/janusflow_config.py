"""The config.json of JanusFlow-1.3B (arXiv 2411.07975)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mm.config import DecoderConfig, FlowHeadConfig, VisionConfig
from mm.errors import ConfigError
from mm.families.fields import Fields
from mm.families.multi_modality import MODEL_TYPE, agree, params_of, parse_llama, parse_siglip

NAME = "janusflow"

# SDXL's autoencoder, which the model was trained with and no config.json names: pixels a side of a latent.
LATENT_PIXELS = 8


@dataclass(frozen=True, kw_only=True)
class JanusFlowConfig:
    """Everything that a JanusFlow config.json says about the model."""

    family: ClassVar[str] = NAME
    vision: VisionConfig
    decoder: DecoderConfig
    flow_head: FlowHeadConfig | None  # None: weights for understanding only


def parse_config(raw: dict[str, Any]) -> JanusFlowConfig:
    """A published config.json -> JanusFlowConfig. Defaults are those of the published classes.

    Raises:
        ConfigError: an unknown key in an architecture part, an unknown or contradictory value.
    """
    top = Fields(raw, "config.json", strict=False)
    top.expect("model_type", MODEL_TYPE)
    top.ignore("pad_token_id")
    # The end of this section is not known of the published file (configs/JanusFlow-1.3B/NOTES.md): 12 to 21 bytes, room
    # for one key. A model must not fail for that; its weights are compared with the sizes one by one in any case.
    tower = params_of(top, "vision_und_enc_config", model_type="vision_und_enc", cls="CLIPVisionTower", strict=False)
    vision = parse_siglip(tower)
    decoder = parse_llama(top.section("language_config"))
    encoder_part = params_of(top, "vision_gen_enc_config", model_type="vision_gen_enc", cls="ShallowUViTEncoder")
    decoder_part = params_of(top, "vision_gen_dec_config", model_type="vision_gen_dec", cls="ShallowUViTDecoder")
    top.finish()
    flow_head = _parse_flow_head(encoder_part, decoder_part, vision.image_size, decoder.hidden_size)
    return JanusFlowConfig(vision=vision, decoder=decoder, flow_head=flow_head)


def _parse_flow_head(encoder: Fields, decoder: Fields, image_size: int, hidden: int) -> FlowHeadConfig:
    # Both keys are in the published file with this typo, and nothing reads either.
    encoder.ignore("elementwize_affine", "elementwise_affine", "num_extra_tensors", "dropout")
    decoder.ignore("elementwise_affine", "dropout")
    # Patches of stride 2, and one unfolding of 2: the only sizes that belong to each other.
    patch = 2
    encoder.expect("stride", patch)
    encoder.expect("kernel_size", patch)
    encoder.expect("padding", 0)
    decoder.expect("upsamples", 1)
    for part in (encoder, decoder):
        part.expect("use_bias", True, default=True)
        part.expect("use_mid_block", True, default=True)
        agree(
            f"{part.place}.hidden_size",
            part.integer("hidden_size", default=2048),
            "language_config.hidden_size",
            hidden,
        )
    width = _width(encoder)
    place = "vision_gen_enc_config.params.block_out_channels"
    agree(f"{decoder.place}.block_out_channels", _width(decoder), place, width)
    agree(f"{decoder.place}.in_channels", decoder.integer("in_channels", default=768), place, width)
    channels = encoder.integer("input_channels", default=3)
    agree(
        f"{decoder.place}.out_channels",
        decoder.integer("out_channels", default=3),
        f"{encoder.place}.input_channels",
        channels,
    )
    eps = encoder.number("norm_eps", default=1e-6)
    if decoder.number("norm_eps", default=1e-6) != eps:
        raise ConfigError(f"{decoder.place}.norm_eps is not that of {encoder.place}, {eps}: they must agree.")
    blocks = [part.integer("layers_in_middle", default=2) for part in (encoder, decoder)]
    encoder.finish()
    decoder.finish()
    side = LATENT_PIXELS * patch
    if image_size % side:
        raise ConfigError(
            f"vision_und_enc_config.params.image_size {image_size} is no whole number of patches of {side} pixels."
        )
    if width % 2:
        raise ConfigError(f"{place} is {width}; expected an even number: half of the time embedding are cosines.")
    # Pictures are drawn at the size that is understood: 384 pixels, 24 x 24 patches.
    return FlowHeadConfig(
        latent_channels=channels,
        latent_pixels=LATENT_PIXELS,
        patch_size=patch,
        grid=image_size // side,
        width=width,
        encoder_blocks=blocks[0],
        decoder_blocks=blocks[1],
        norm_eps=eps,
    )


def _width(fields: Fields) -> int:
    """The one entry of ``block_out_channels``."""
    found = fields.raw.get("block_out_channels", [768])
    fields.ignore("block_out_channels")
    if not isinstance(found, list) or len(found) != 1 or type(found[0]) is not int or found[0] < 1:
        raise ConfigError(f"{fields.place}.block_out_channels is {found!r}; expected a list of one whole number.")
    return found[0]
