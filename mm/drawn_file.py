"""PNG files that say how they were drawn: written with text chunks, read back for `mm draw --again`."""

import io
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mm import __version__
from mm.errors import ImageError, OptionError
from mm.whole_file import check_writable, write_whole

if TYPE_CHECKING:
    import PIL.Image

_CHUNKS = ("prompt", "seed", "model", "settings")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a picture, or a grid of pictures, was drawn from. Fields are named as the options of `mm draw`."""

    prompt: str
    seed: int | None  # of the first picture; None until one is chosen
    model: str
    revision: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float = 5.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    steps: int | None = None
    vae: str | None = None
    number: int = 1
    best_of: int | None = None
    rerank: str | None = None
    grid: bool = False
    speculation: str | None = None
    speculation_window: int | None = None
    quantization: str | None = None

    def chunks(self) -> dict[str, str]:
        """The text chunks of a PNG file: prompt, seed and model, and all else as JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        head = {name: str(values.pop(name)) for name in ("prompt", "seed", "model")}
        return {"Software": f"mm {__version__}", **head, "settings": json.dumps(values)}

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """The recipe in a file.

        Raises:
            ImageError: it is not a PNG file that `mm draw` wrote, or it was changed since.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.load()  # chunks may stand behind the pixels
                text = {name: str(value) for name, value in getattr(image, "text", {}).items()}
        except FileNotFoundError as error:
            raise ImageError(f"there is no file {str(path)!r}. Name a PNG file that 'mm draw' wrote") from error
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ImageError(
                f"{str(path)!r} cannot be read as PNG ({error}). Name a file that 'mm draw' wrote"
            ) from error
        missing = [name for name in _CHUNKS if name not in text]
        if missing:
            raise ImageError(
                f"{str(path)!r} does not say how it was drawn: it has no {missing[0]!r}. Name a PNG file that 'mm "
                "draw' wrote; programs that change or upload pictures often drop these texts"
            )
        try:
            values = json.loads(text["settings"])
            values |= {"prompt": text["prompt"], "seed": int(text["seed"]), "model": text["model"]}
            known = {item.name: item.type for item in fields(cls)}
            wrong = [name for name, value in values.items() if name not in known or not _is_of(value, str(known[name]))]
        except (ValueError, TypeError, RecursionError) as error:  # the last: JSON of thousands of brackets
            raise _changed(path, str(error)) from error
        if wrong:
            raise _changed(path, f"{wrong[0]!r} is {values[wrong[0]]!r}")
        return cls(**values)


def _is_of(value: Any, kind: str) -> bool:
    """Whether a value from JSON is of an annotation such as "int | None"."""
    kinds = {part.strip() for part in kind.replace("<class '", "").replace("'>", "").split("|")}
    name = "None" if value is None else type(value).__name__
    return name in kinds or (name == "int" and "float" in kinds)


def _changed(path: Path, why: str) -> ImageError:
    return ImageError(f"the settings in {str(path)!r} are not as 'mm draw' wrote them: {why}. Draw it anew")


def save(image: "PIL.Image.Image", path: Path, recipe: Recipe) -> None:
    """Write a picture with its recipe.

    Raises:
        ResourceError: it cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in recipe.chunks().items():
        info.add_text(name, text)
    data = io.BytesIO()
    image.save(data, format="PNG", pnginfo=info)
    write_whole(path, data.getvalue())


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written, before a model is loaded. What is there stays as it is.

    Raises:
        OptionError: not a PNG file.
        ResourceError: its folder does not exist, or it cannot be written.
    """
    if path.is_dir():
        raise OptionError(f"cannot write {str(path)!r}: it is a folder. Name a .png file in it")
    if path.suffix.lower() != ".png":
        raise OptionError(
            f"cannot write {str(path)!r}: pictures are written as PNG, which keeps prompt and seed with them. Name a "
            ".png file"
        )
    check_writable(path)


def free_name(path: Path) -> Path:
    """The path, or the first one with a number that does not exist yet."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found
