"""Opening images: from a path, bytes, a data URI, a PIL image or an array to one RGB image, safely.

Two manners. The default looks at a picture as a person sees it: EXIF rotation is applied, transparency lies over white,
16-bit samples are scaled to 8. ``official=True`` is what the published processors do (Pillow's ``convert("RGB")`` and
nothing else) and is what the recorded cases were made with.
"""

import base64
import binascii
import difflib
import io
import os
import re
import stat
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from mm.errors import ImageError, OptionError, ResourceError

ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

# Twice PIL.Image.MAX_IMAGE_PIXELS (89,478,485): Pillow itself refuses more unless that is raised.
MAX_PIXELS = 178_956_970

# Pillow's readers that only decode pixels. Left out: EPS (starts Ghostscript), WMF, PSD and the scientific stubs.
_FORMATS = (
    *("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "DIB", "ICO", "TGA", "PCX", "SGI", "QOI"),
    *("ICNS", "DDS", "MSP", "SUN", "XBM"),
)

_EXIF_ORIENTATION = 0x0112  # tag 274 of the EXIF 2.3 standard, section 4.6.4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# First bytes of what people mistake for an image, and what to do about it.
_NOT_IMAGES = (
    (b"%PDF", "a PDF document. Save its pages as PNG images first"),
    (b"<svg", "an SVG drawing. Export it as PNG first"),
    (b"<?xml", "an XML (or SVG) document. Export a drawing as PNG first"),
    (b"<!DOCTYPE", "a web page. Download the image itself, not the page around it"),
    (b"<html", "a web page. Download the image itself, not the page around it"),
    (b"%!PS", "a PostScript drawing, which is never run here. Convert it to PNG first"),
    (b"PK\x03\x04", "a zip archive or an office document. Pass one image"),
    (b"version https://git-lfs", "a Git LFS pointer. Fetch the real file with: git lfs pull"),
)
_IMAGES = (
    (b"\x89PNG", "a PNG"),
    (b"\xff\xd8\xff", "a JPEG"),
    (b"GIF8", "a GIF"),
    (b"RIFF", "a WebP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"BM", "a BMP"),
)
_HEAD = 512  # bytes that _describe looks at
_MAX_SHOWN = 80  # characters of a user's string that a message repeats

_open_lock = threading.Lock()  # warnings.catch_warnings is not thread-safe


def open_image(source: ImageSource, *, official: bool = False, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open ``source`` as an RGB image.

    Args:
        source: a path, a ``data:image/...;base64,`` URI, the bytes of an image file, a PIL image, or a uint8 array of
            shape (H, W), (H, W, 3) or (H, W, 4). Files of several frames give their first frame.
        official: convert as the published processors do: no EXIF rotation, alpha dropped, 16-bit values clipped.
        max_pixels: refuse larger images before they are decoded. Above ``MAX_PIXELS`` Pillow's own limit rules too.

    Returns:
        An image of mode RGB. It may be ``source`` itself; the caller's image is never changed.

    Raises:
        ImageError: the source is missing, a folder, empty, truncated, not an image, too large or of a wrong type.
        OptionError: ``max_pixels`` is not positive.
        ResourceError: there is not enough memory to decode it.
    """
    if max_pixels < 1:
        raise OptionError(f"max_pixels must be at least 1, got {max_pixels}")
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the PIL image", official=official, max_pixels=max_pixels)
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "the array", official=official, max_pixels=max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), "the image data", official=official, max_pixels=max_pixels)
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if isinstance(text, str):
            if text[:5].lower() == "data:":
                stream = io.BytesIO(decode_data_uri(text))
                return _decode(stream, "the image in the data URI", official=official, max_pixels=max_pixels)
            refuse_url(text)
            return _open_file(text, official=official, max_pixels=max_pixels)
    raise ImageError(
        f"cannot open an image from {type(source).__name__}. "
        "Pass a path, a data URI, the bytes of an image file, a PIL image or a numpy array"
    )


def decode_data_uri(uri: str) -> bytes:
    """The bytes of a ``data:[type];base64,...`` URI (RFC 2397).

    Raises:
        ImageError: no comma, not base64, not an image type, or no data.
    """
    header, comma, payload = uri.partition(",")
    if not comma:
        raise ImageError(f"the data URI {shown(uri)} has no comma. Expected: data:image/png;base64,<data>")
    media_type, *options = header[len("data:") :].split(";")
    if media_type and not media_type.lower().startswith(("image/", "application/octet-stream")):
        raise ImageError(
            f"the data URI holds {shown(media_type)}, not an image. Expected: data:image/png;base64,<data>"
        )
    if "base64" not in (option.strip().lower() for option in options):
        raise ImageError(f"the data URI {shown(header)} is not base64. Expected: data:image/png;base64,<data>")
    compact = "".join(payload.split()).translate(_URL_SAFE)
    compact += "=" * (-len(compact) % 4)
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(
            f"the data URI is not valid base64 ({error}). Encode the image file again with base64 and pass all of it"
        ) from error


_URL_SAFE = str.maketrans("-_", "+/")  # RFC 4648, section 5


def refuse_url(text: str) -> None:
    """Raise ``ImageError`` when ``text`` is a URL of the network or of a file; a plain path passes."""
    scheme, separator, _ = text.partition("://")
    if not separator or not scheme.isalnum():
        return
    if scheme.lower() == "file":
        raise ImageError(f"{shown(text)} is a file URL. Pass the path itself, without file://")
    raise ImageError(
        f"{shown(text)} is a URL, and images are never downloaded here. Save the image first "
        "(for example: curl -L -o image.png URL) and pass the path of the saved file"
    )


def _open_file(text: str, *, official: bool, max_pixels: int) -> Image.Image:
    if not text.strip():
        raise ImageError("the image path is empty. Pass the path of an image file")
    path = Path(text)
    try:
        if text.startswith("~") and not path.exists():
            path = path.expanduser()
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise ImageError(f"{shown(text)} is a folder. Pass one image file{_examples(path)}")
        if not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
            raise ImageError(f"{shown(text)} is a device, not a file. Pass one image file")
        with path.open("rb") as file:
            stream = file if file.seekable() else io.BytesIO(file.read())
            return _decode(stream, shown(text), official=official, max_pixels=max_pixels)
    except FileNotFoundError as error:
        raise ImageError(_missing(path)) from error
    except ImageError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: no home folder for "~"
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(
            f"cannot read the image {shown(text)}: {reason}. Check the path and its permissions"
        ) from error


def _missing(path: Path) -> str:
    """The message for a path that leads to nothing, with similar names from the same folder."""
    message = f"there is no image at {shown(str(path))}"
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"{message}: the folder {shown(str(path.parent))} does not exist. Check the path"
    by_lower = {name.lower(): name for name in names}
    similar = [by_lower[name] for name in difflib.get_close_matches(path.name.lower(), by_lower, n=3, cutoff=0.6)]
    similar += [name for name in names if Path(name).stem.lower() == path.stem.lower() and name not in similar]
    if similar:
        return f"{message}. Similar names there: {', '.join(similar[:3])}"
    return f"{message}. Check the path (it is looked up from {shown(str(Path.cwd()))})"


def _examples(folder: Path) -> str:
    endings = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in endings)
    except OSError:
        names = []
    return f", for example {folder / names[0]}" if names else ""


def _from_array(array: np.ndarray) -> Image.Image:
    shapes = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shapes:
        raise ImageError(
            f"expected a numpy uint8 array of shape (height, width, 3), got {array.dtype} of shape {array.shape}. "
            "Scale the values to 0..255, put the channels last and convert with .astype(numpy.uint8)"
        )
    if array.size == 0:
        raise ImageError(f"the array of shape {array.shape} has no pixels")
    return Image.fromarray(array)


def _decode(stream: BinaryIO, name: str, *, official: bool, max_pixels: int) -> Image.Image:
    head = stream.read(_HEAD)
    stream.seek(0)
    if not head:
        raise ImageError(f"{name} is empty (0 bytes). Save or copy the image again")
    formats = _known_formats()
    try:
        with _open_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the pixel limit below speaks instead of Pillow's bomb warning
            image: Image.Image = Image.open(stream, formats=formats)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} is too large to open safely: {_bomb_size(error)}. A small file with so many pixels is often made "
            "to fill the memory. If you trust it, scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image: {_describe(head)}") from error
    except MemoryError as error:
        raise ResourceError(f"not enough memory to open {name}. Pass a smaller image") from error
    except Exception as error:  # a reader fed a broken header raises whatever its parser met
        raise ImageError(f"{name} cannot be opened as an image ({error}). Save or copy it again") from error
    with image:
        return _to_rgb(image, name, official=official, max_pixels=max_pixels)


def _bomb_size(error: Image.DecompressionBombError) -> str:
    """Pillow's message in other words: how many pixels, and how many are too many."""
    numbers = re.findall(r"\d+", str(error))
    if len(numbers) != 2:
        return str(error)
    return f"it claims {int(numbers[0]):,} pixels; the limit is {int(numbers[1]):,}"


def _known_formats() -> tuple[str, ...]:
    """The readers of ``_FORMATS`` that this Pillow has."""
    if not all(name in Image.OPEN for name in _FORMATS):
        Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _describe(head: bytes) -> str:
    """What a file that is no image most likely is, by its first bytes, and the next step."""
    for magic, kind in _IMAGES:
        if head.startswith(magic):
            return f"it starts as {kind} but its header is damaged or cut short. Save or copy it again"
    trimmed = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, advice in _NOT_IMAGES:
        if trimmed[: len(magic)].lower() == magic.lower():
            return f"it is {advice}"
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            return "it is a HEIC photo, which Pillow cannot read. Save it as JPEG or PNG first"
        return "it looks like a video. Save one frame as PNG first"
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character.isspace() for character in text):
        return "it holds text. Pass an image file, and the text as the question"
    return f"its first bytes are {head[:8].hex(' ')}. Save it as PNG or JPEG"


def _to_rgb(image: Image.Image, name: str, *, official: bool, max_pixels: int) -> Image.Image:
    """Check the size, decode, convert. ``image`` itself is never changed (beyond being loaded)."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width}x{height}: it has no pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width * height:,} pixels ({width}x{height}); the limit is {max_pixels:,}. Scale it down first"
        )
    try:
        image.load()
        return _convert(image, official=official)
    except MemoryError as error:
        raise ResourceError(f"not enough memory to decode {name} ({width}x{height}). Pass a smaller image") from error
    except (
        Exception
    ) as error:  # a decoder fed broken data raises whatever it met: OSError, SyntaxError, zlib.error, ...
        raise ImageError(
            f"{name} is damaged or cut short and cannot be decoded ({error}). Save or copy it again"
        ) from error


def _convert(image: Image.Image, *, official: bool) -> Image.Image:
    if official:
        if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
            image = image.copy()
            del image.info["transparency"]  # does not touch the colours; Pillow would warn that it is dropped
        return image.convert("RGB")
    orientation = _orientation(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _to_eight_bits(image)
    if image.mode == "La":  # premultiplied; Pillow converts it to LA only
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8; a broken EXIF block counts as upright, as in every viewer."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # Pillow's EXIF parser raises many types on damaged blocks; the pixels are fine
        return 1
    return value if isinstance(value, int) else 1


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit integer and float samples to 8-bit gray.

    16-bit modes use the full range 0..65535. The modes I (int32) and F (float32) carry no range: values within 0..1
    (F only), 0..255 and 0..65535 are read so, in that order; anything else is stretched from minimum to maximum.
    """
    mode = image.mode
    # float64 holds every sample of the three modes exactly
    samples = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)  # (H, W)
    low, high = float(samples.min()), float(samples.max())
    if mode.startswith("I;16"):
        bottom, top = 0.0, 65535.0
    elif low < 0 or high > 65535:
        bottom, top = low, high
    elif mode == "F" and high <= 1:
        bottom, top = 0.0, 1.0
    else:
        bottom, top = 0.0, 255.0 if high <= 255 else 65535.0
    scaled = np.rint((samples - bottom) * (255.0 / max(top - bottom, 1e-12)))
    return Image.fromarray(scaled.astype(np.uint8))


def shown(text: str) -> str:
    """A user's string for a message: quoted, and cut when it is long."""
    return repr(text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "...")
