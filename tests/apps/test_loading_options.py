"""The apps load models as the command line does: the same names of quantisations, refused before a model is loaded."""

import pytest
import torch

from apps.models import Models
from apps.server import parse_arguments
from mm.errors import OptionError


def test_weights_are_quantised_and_encoders_compiled_as_asked():
    models = Models(["nano-vl2"], device="cpu", quantization="int8", compile=True)
    pipe = models.load("nano-vl2")
    assert pipe.model.decoder.quantization == "int8"
    blocks = [module for name, module in pipe.model.vision.named_modules() if name.endswith("blocks.0")]
    assert blocks and all(block._compiled_call_impl is not None for block in blocks)
    assert models.plan("nano-vl2").quantization == "int8"


def test_what_is_wrong_is_told_at_the_start(capsys):
    given, _ = parse_arguments(["--quantization", "int4", "--compile"], "mm app", "")
    assert (given.quantization, given.compile) == ("int4", True)
    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--quantization", "int3"], "mm app", "")
    assert ended.value.code == 2 and "invalid choice: 'int3'" in capsys.readouterr().err
    with pytest.raises(OptionError, match="quantization is 'int3'; use one of int8, fp8, int4"):
        Models(quantization="int3")
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="sees no GPU"):
            Models(device="cuda", quantization="fp8")
