"""What `import mm` offers, and what it must not cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mm

HEAVY = ("gradio", "ray", "diffusers", "timm", "open_clip", "peft", "transformers")


def fresh_python(code: str) -> str:
    """Output of ``code`` in a new interpreter that finds this package."""
    root = Path(mm.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    return done.stdout


def test_all_is_sorted_and_every_name_is_there():
    assert mm.__all__ == sorted(mm.__all__)
    assert len(set(mm.__all__)) == len(mm.__all__)
    for name in mm.__all__:
        assert getattr(mm, name).__name__ == name
    assert set(mm.__all__) <= set(dir(mm))


def test_the_names_for_type_checkers_are_the_same():
    tree = ast.parse(Path(mm.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mm.")
        for alias in node.names
    }
    assert imported == mm._HOME


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'; public names: Box, "):
        mm.Pipelin  # noqa: B018


def test_every_error_is_public_and_an_mm_error():
    from mm import errors

    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert name in mm.__all__
            assert issubclass(value, mm.MMError)


def test_import_mm_loads_nothing_of_others():
    code = "import sys; before = set(sys.modules); import mm; print(sorted(m for m in set(sys.modules) - before))"
    loaded = {name.partition(".")[0] for name in ast.literal_eval(fresh_python(code))}
    assert not loaded & {*HEAVY, "torch", "numpy", "PIL"}


def test_the_public_names_load_no_heavy_library():
    code = f"""
import sys, time
import torch
torch_modules = set(sys.modules)
start = time.process_time()
import mm
print(time.process_time() - start)
for name in mm.__all__:
    getattr(mm, name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    seconds, loaded = fresh_python(code).splitlines()
    assert float(seconds) < 0.3
    assert loaded == "[]"
