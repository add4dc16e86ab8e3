"""What a family gives to the rest of the library."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm.families.deepseek_vl2_config import DeepseekVL2Config
from mm.model import VisionLanguageModel
from mm.processing.base import Processor
from mm.weights import KeyMap

FamilyConfig = DeepseekVL2Config


@dataclass(frozen=True, kw_only=True)
class Family:
    """One line of the table of families."""

    parse_config: Callable[[dict[str, Any]], FamilyConfig]
    build: Callable[[FamilyConfig], VisionLanguageModel]
    build_processor: Callable[[Path], Processor]
    key_map: KeyMap
