"""`mm app`: the web apps. They are found through a table of strings, so that nothing here imports them."""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import typer

from mm.errors import CheckpointError, MissingExtraError
from mm.registry import Registry

APPS = Registry(
    "app",
    {
        "all": "mm.apps.front:main",
        "chat": "mm.apps.chat:main",
        "ocr": "mm.apps.ocr_chart:main",
        "draw": "mm.apps.text_to_image:main",
    },
)
# The apps define their own options, and show them with --help.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": list[str]()}


def app(context: typer.Context) -> None:
    """Start a web app: chat, ocr or draw; without a name, all as tabs. `mm app chat --help` lists options."""
    words = list(context.args)
    name = words.pop(0) if words and not words[0].startswith("-") else "all"
    if name not in APPS.entries:
        APPS.load(name)  # raises: unknown name
    find_apps()
    raise typer.Exit(APPS.load(name)(words))


def find_apps() -> None:
    """Make ``mm.apps`` importable. An installed package holds it; in a checkout it is the folder apps beside mm.

    Raises:
        MissingExtraError: gradio is not installed.
        CheckpointError: the apps are not there.
    """
    if find_spec("gradio") is None:
        raise MissingExtraError("gradio", "dev", "the web apps")
    if find_spec("mm.apps") is not None:
        return
    folder = Path(__file__).parents[2] / "apps"
    spec = spec_from_file_location("mm.apps", folder / "__init__.py", submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise CheckpointError(f"this installation has no apps: {folder} is missing. Install mm again.")
    module = module_from_spec(spec)
    sys.modules["mm.apps"] = module
    spec.loader.exec_module(module)
