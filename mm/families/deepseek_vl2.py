"""DeepSeek-VL2: key map and build; its config.json is read in ``deepseek_vl2_config``."""

from pathlib import Path

from mm.adaptors.pixel_shuffle import PixelShuffleAdaptor
from mm.families.deepseek_vl2_config import DeepseekVL2Config, parse_config
from mm.families.family import Family
from mm.language.decoder import Decoder
from mm.model import VisionLanguageModel
from mm.processing.vl2 import VL2Processor
from mm.weights import Dropped, KeyMap, Rename, Stack

KEY_MAP = KeyMap(
    renames=(
        Rename("projector.", "adaptor."),
        Rename("view_seperator", "view_separator"),  # the published spelling
        Rename("language.", "decoder."),
    ),
    stacks=(Stack("{prefix}.experts.{index}.{projection}.weight", "{prefix}.experts.{projection}"),),
    dropped=(Dropped(r"vision\.attn_pool\..*", "SigLIP's pooling head, never used by the model"),),
)


def build(config: DeepseekVL2Config) -> VisionLanguageModel:
    """The model on the current default device (use ``torch.device("meta")`` to build without memory)."""
    from mm.vision.encoder import build_siglip  # timm is slow to import and not needed to read a config

    return VisionLanguageModel(
        build_siglip(config.vision), PixelShuffleAdaptor(config.adaptor), Decoder(config.decoder)
    )


def build_processor(folder: Path) -> VL2Processor:
    """The processor of a checkpoint folder."""
    return VL2Processor.from_folder(folder)


FAMILY = Family(parse_config=parse_config, build=build, build_processor=build_processor, key_map=KEY_MAP)
