"""Janus-1.3B, Janus-Pro-1B and Janus-Pro-7B: key map, templates and build; config.json is read in ``janus_config``."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mm.adaptors.mlp import MLPAdaptor
from mm.adaptors.tile_layout import ViewOrder
from mm.families.family import Family, pooling_head_parameters
from mm.families.janus_config import JanusConfig, parse_config
from mm.families.multi_modality import PLAIN_ROLES, SYSTEM_PROMPT, build_janus_processor, janus_prompt_tokens
from mm.generation.image_head import ImageHead
from mm.generation.vq import VQTokenizer
from mm.language.decoder import Decoder
from mm.model import VisionLanguageModel
from mm.processing.vlm import PromptTemplate, VLMProcessor
from mm.processing.vlm_spec import Tags, VLMSpec
from mm.weights import Dropped, KeyMap, Rename

IMAGE_SIDE = ("gen_vision_model.", "gen_aligner.", "gen_head.", "gen_embed.")
CODEBOOK_USED = 65536  # elements of a counter in the published files

KEY_MAP = KeyMap(
    renames=(
        Rename("vision_model.vision_tower.", "vision."),
        Rename("aligner.", "adaptor."),
        Rename("language_model.", "decoder."),
        Rename("gen_vision_model.", "image_head.vq."),
        Rename("gen_aligner.", "image_head.aligner."),
        Rename("gen_embed.", "image_head.embedding."),
        Rename("gen_head.", "image_head."),
    ),
    dropped=(
        Dropped(r"vision_model\.vision_tower\.attn_pool\..*", "SigLIP's pooling head, never used by the model"),
        Dropped(r"gen_vision_model\.quantize\.codebook_used", "a counter of training"),
    ),
)

# By ``sft_format``. Janus-1.3B was trained with plain words for the roles, Janus-Pro with tokens.
TEMPLATES = {
    "deepseek": PromptTemplate(names={"user": "<|User|>", "assistant": "<|Assistant|>"}, system_prompt=SYSTEM_PROMPT),
    "deepseek_old": PLAIN_ROLES,
}
# Defaults of the published processor class, which its files do not repeat.
TAGS = Tags(image="<image_placeholder>", image_start="<begin_of_image>", image_end="<end_of_image>", pad="<｜▁pad▁｜>")


def build(config: JanusConfig) -> VisionLanguageModel:
    """The model on the current default device (use ``torch.device("meta")`` to build without memory)."""
    from mm.vision.encoder import build_siglip  # timm is slow to import and not needed to read a config

    image_head = None
    if config.image_head is not None:
        image_head = ImageHead(
            config.image_head,
            width=config.decoder.hidden_size,
            aligner=MLPAdaptor(config.image_head.aligner),
            vq=VQTokenizer(config.image_head.vq),
        )
    return VisionLanguageModel(
        vision=build_siglip(config.vision),
        adaptor=MLPAdaptor(config.adaptor),
        arrange=ViewOrder(),
        decoder=Decoder(config.decoder),
        image_head=image_head,
    )


def restrict(config: JanusConfig, published: Collection[str]) -> JanusConfig:
    """A checkpoint without any tensor of the generation side is one for understanding only."""
    names = (name for name in published if not KEY_MAP.is_dropped(name))
    return config if any(name.startswith(IMAGE_SIDE) for name in names) else replace(config, image_head=None)


def read_spec(folder: Path) -> VLMSpec:
    """The processor's settings in a checkpoint folder."""
    return VLMSpec.from_folder(folder, tags=TAGS, formats=TEMPLATES.keys())


def build_processor(folder: Path, config: JanusConfig) -> VLMProcessor:
    """The processor of a checkpoint folder."""
    spec = read_spec(folder)
    return build_janus_processor(folder, spec, TEMPLATES[spec.sft_format], config.vision, "vision_config.params")


def prompt_tokens(spec: VLMSpec) -> dict[str, str]:
    """Roles, what stands around and in an image, and what an unconditional prompt is filled with."""
    return janus_prompt_tokens(spec, TEMPLATES[spec.sft_format])


def unused_elements(config: JanusConfig) -> int:
    """The pooling head and the counter."""
    return pooling_head_parameters(config.vision) + (CODEBOOK_USED if config.image_head is not None else 0)


FAMILY = Family(
    parse_config=parse_config,
    build=build,
    read_spec=read_spec,
    prompt_tokens=prompt_tokens,
    build_processor=build_processor,
    key_map=KEY_MAP,
    unused_elements=unused_elements,
    restrict=restrict,
    draws=True,
)
