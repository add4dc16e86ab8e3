"""What the families with ``model_type`` "multi_modality" (DeepSeek-VL, Janus, JanusFlow) share in config.json, and what
both Janus share besides.

A section is ``{"model_type", "cls", "params": {...}}``. Published files name a tower, and its sizes come from a table;
keys beside the name override the table.
"""

from pathlib import Path
from typing import Any

from mm.config import DecoderConfig, MLPConfig, VisionConfig
from mm.errors import ConfigError
from mm.families.decoders import parse_dense
from mm.families.family import check_agreement
from mm.families.fields import Fields
from mm.processing.vlm import PromptTemplate, VLMProcessor
from mm.processing.vlm_spec import PREPROCESSOR, PROCESSOR, VLMSpec

MODEL_TYPE = "multi_modality"

SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
# DeepSeek-VL and Janus-1.3B were trained with plain words for the roles.
PLAIN_ROLES = PromptTemplate(names={"user": "User", "assistant": "Assistant"}, system_prompt=SYSTEM_PROMPT)


def params_of(top: Fields, name: str, *, model_type: str, cls: str, strict: bool = True) -> Fields:
    """The params of section ``name``, once its class is the expected one.

    Args:
        top: the whole config.
        name: of the section.
        model_type: that it must have.
        cls: likewise.
        strict: unknown keys are an error, or else a warning.

    Raises:
        ConfigError: the section is missing, of another class, or has unknown keys.
    """
    section = Fields(top.section(name), name, strict=strict)
    section.expect("model_type", model_type, default=model_type)
    section.expect("cls", cls)
    params: dict[str, Any] = section.section("params")
    section.finish()
    return Fields(params, f"{name}.params", strict=strict)


def parse_siglip(fields: Fields) -> VisionConfig:
    """A SigLIP tower: ``siglip_large_patch16_384``, exact GELU.

    Raises:
        ConfigError: another tower, an unknown key, sizes that do not fit each other.
    """
    fields.expect("model_name", "siglip_large_patch16_384", default="siglip_large_patch16_384")
    fields.expect("select_feature", "same", default="same")
    width = fields.integer("width", default=1024)
    blocks = fields.integer("layers", default=24)
    config = VisionConfig(
        image_size=fields.integer("image_size", default=384),
        patch_size=fields.integer("patch_size", default=16),
        width=width,
        num_blocks=_num_blocks(fields, blocks),
        num_heads=fields.integer("heads", default=16),
        mlp_width=int(width * fields.number("mlp_ratio", default=4.0)),
        gelu="exact",
    )
    fields.finish()
    fields.divides("heads", config.num_heads, "width", config.width)
    fields.divides("patch_size", config.patch_size, "image_size", config.image_size)
    return config


def _num_blocks(fields: Fields, layers: int) -> int:
    """Blocks that run: ``select_layer`` counts from the end where it is 0 or negative, as published."""
    selected = fields.raw.get("select_layer", -1)
    fields.ignore("select_layer")
    if isinstance(selected, bool) or not isinstance(selected, int) or not -layers <= selected <= layers:
        raise ConfigError(
            f"{fields.place}.select_layer is {selected!r}; expected a whole number from {-layers} to {layers}."
        )
    return selected if selected > 0 else min(layers, layers + selected + 1)


def parse_mlp(fields: Fields, *, input_width: int, output_width: int, projector_type: str = "mlp_gelu") -> MLPConfig:
    """A projector of this type between the two widths.

    Raises:
        ConfigError: another projector, an unknown key, or other widths.
    """
    fields.expect("projector_type", projector_type, default="mlp_gelu")
    config = MLPConfig(
        input_width=fields.integer("input_dim"),
        output_width=fields.integer("n_embed"),
        depth=fields.integer("depth", default=1),
    )
    fields.finish()
    agree(f"{fields.place}.input_dim", config.input_width, "the width of what it is given", input_width)
    agree(f"{fields.place}.n_embed", config.output_width, "language_config.hidden_size", output_width)
    return config


def agree(place: str, found: int, other: str, expected: int) -> None:
    """Two numbers of a config that must be equal.

    Raises:
        ConfigError: they are not.
    """
    if found != expected:
        raise ConfigError(f"{place} is {found}, but {other} is {expected}: they must agree.")


def parse_llama(raw: dict[str, Any]) -> DecoderConfig:
    """The ``language_config`` of a Llama; absent keys have the defaults of transformers' LlamaConfig.

    Raises:
        ConfigError: an unknown key, or values that do not fit each other.
    """
    fields = Fields(raw, "language_config")
    fields.expect("model_type", "llama", default="llama")
    fields.expect("attention_bias", False, default=False)
    config = parse_dense(fields, qkv_bias=False, output_bias=False, scalings=("linear",))
    fields.finish()
    return config


def build_janus_processor(
    folder: Path, spec: VLMSpec, template: PromptTemplate, vision: VisionConfig, place: str
) -> VLMProcessor:
    """The processor of a checkpoint with one SigLIP tower.

    Args:
        folder: of the checkpoint.
        spec: its processor's settings.
        template: what ``spec.sft_format`` names.
        vision: the tower.
        place: of the tower in config.json.

    Raises:
        ConfigError: the processor's files disagree with config.json.
    """
    size = ("image_size", spec.image_size, place, vision.image_size)
    tokens = ("num_image_tokens", spec.num_image_tokens, "the encoder in config.json", vision.grid**2)
    check_agreement(folder, (size,), file=PREPROCESSOR)
    check_agreement(folder, (tokens,), file=PROCESSOR)
    return VLMProcessor.from_folder(folder, spec, template)


def janus_prompt_tokens(spec: VLMSpec, template: PromptTemplate) -> dict[str, str]:
    """Roles, what stands around and in an image, what a prompt to draw ends with, and what an unconditional one is
    filled with; those that the checkpoint has."""
    tags = spec.tags
    texts = {
        "image": tags.image,
        "image start": tags.image_start,
        "image end": tags.image_end,
        "generation": tags.generation,
        "pad": tags.pad,
    }
    found = {purpose: text for purpose, text in texts.items() if text is not None}
    return {"user": template.names["user"], "assistant": template.names["assistant"], **found}
