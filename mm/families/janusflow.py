"""JanusFlow-1.3B: key map, templates and build; config.json is read in ``janusflow_config``."""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from mm.adaptors.tile_layout import BegunViewOrder
from mm.families.family import Family, pooling_head_parameters
from mm.families.janusflow_config import JanusFlowConfig, parse_config
from mm.families.multi_modality import PLAIN_ROLES, build_janus_processor, janus_prompt_tokens
from mm.generation.flow import FlowHead
from mm.language.decoder import Decoder
from mm.language.layers import RMSNorm
from mm.model import VisionLanguageModel
from mm.processing.base import read_settings
from mm.processing.vlm import VLMProcessor
from mm.processing.vlm_spec import PREPROCESSOR, PROCESSOR, Tags, VLMSpec
from mm.weights import Dropped, KeyMap, Rename

FLOW_SIDE = ("vision_gen_",)

KEY_MAP = KeyMap(
    renames=(
        Rename("vision_und_enc_model.vision_tower.", "vision."),
        Rename("vision_und_enc_aligner.", "adaptor."),
        Rename("beg_of_und_embed", "arrange.begin"),
        Rename("language_model.", "decoder."),
        Rename("vision_gen_enc_model.", "flow_head.encoder."),
        Rename("vision_gen_enc_aligner.", "flow_head.encoder_aligner."),
        Rename("vision_gen_dec_model.", "flow_head.decoder."),
        Rename("vision_gen_dec_aligner_norm.", "flow_head.decoder_aligner_norm."),
        Rename("vision_gen_dec_aligner.", "flow_head.decoder_aligner."),
    ),
    dropped=(
        Dropped(r"vision_und_enc_model\.vision_tower\.attn_pool\..*", "SigLIP's pooling head, never used by the model"),
    ),
)

# By ``sft_format``; the model is asked with plain words for the roles under either.
TEMPLATES = {"deepseek": PLAIN_ROLES, "deepseek_old": PLAIN_ROLES}
TAGS = Tags(
    image="<image_placeholder>",
    image_start="<begin_of_image>",
    image_end="<end_of_image>",
    pad="<｜▁pad▁｜>",
    generation="<｜begin▁of▁generation｜>",
    start_is_image=True,
)
# What the published processor classes take where their files say nothing. Which keys the published files hold is not
# known (configs/JanusFlow-1.3B/NOTES.md); what they say counts.
PROCESSOR_DEFAULTS = {"ignore_id": -100, "mask_prompt": True, "num_image_tokens": 576, "sft_format": "deepseek"}
PREPROCESSOR_DEFAULTS = {
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_size": 384,
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "min_size": 14,
    "rescale_factor": 1 / 255,
}


def build(config: JanusFlowConfig) -> VisionLanguageModel:
    """The model on the current default device (use ``torch.device("meta")`` to build without memory)."""
    from mm.vision.encoder import build_siglip  # timm is slow to import and not needed to read a config

    hidden, flow_head = config.decoder.hidden_size, None
    if config.flow_head is not None:
        flow_head = FlowHead(
            config.flow_head,
            width=hidden,
            norm_of=partial(RMSNorm, eps=config.flow_head.norm_eps),
            hidden_norm=RMSNorm(hidden, eps=config.decoder.rms_norm_eps),
        )
    return VisionLanguageModel(
        vision=build_siglip(config.vision),
        adaptor=nn.Linear(config.vision.width, hidden),
        arrange=BegunViewOrder(hidden),
        decoder=Decoder(config.decoder),
        flow_head=flow_head,
    )


def restrict(config: JanusFlowConfig, published: Collection[str]) -> JanusFlowConfig:
    """A checkpoint without any tensor of the generation side is one for understanding only."""
    return config if any(name.startswith(FLOW_SIDE) for name in published) else replace(config, flow_head=None)


def read_spec(folder: Path) -> VLMSpec:
    """The processor's settings in a checkpoint folder; keys that are missing have the published classes' defaults."""
    return VLMSpec.from_dicts(
        {**PROCESSOR_DEFAULTS, **read_settings(folder / PROCESSOR)},
        {**PREPROCESSOR_DEFAULTS, **read_settings(folder / PREPROCESSOR)},
        tags=TAGS,
        formats=TEMPLATES.keys(),
    )


def build_processor(folder: Path, config: JanusFlowConfig) -> VLMProcessor:
    """The processor of a checkpoint folder."""
    spec = read_spec(folder)
    return build_janus_processor(
        folder, spec, TEMPLATES[spec.sft_format], config.vision, "vision_und_enc_config.params"
    )


def prompt_tokens(spec: VLMSpec) -> dict[str, str]:
    """Roles, what stands around and in an image, and what a prompt to draw ends with."""
    return janus_prompt_tokens(spec, TEMPLATES[spec.sft_format])


def unused_elements(config: JanusFlowConfig) -> int:
    """The pooling head."""
    return pooling_head_parameters(config.vision)


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
    flows=True,
)
