"""Opening images: what can be opened is opened rightly, what cannot gives one clear error."""

import base64
import io
import os
import random
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mm.errors import ImageError, MMError, OptionError
from mm.images import MAX_PIXELS, decode_data_uri, open_image


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def png_bytes(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode == "RGB" and np.array_equal(np.asarray(a), np.asarray(b))


def test_every_kind_of_source_gives_the_same_image(picture: Image.Image, tmp_path: Path) -> None:
    data = png_bytes(picture)
    path = tmp_path / "a picture.png"
    path.write_bytes(data)
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    for source in (path, str(path), data, bytearray(data), uri, picture, np.asarray(picture)):
        assert same(open_image(source), picture)  # type: ignore[arg-type]


def test_home_folder_is_expanded(picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    picture.save(tmp_path / "a.png")
    assert same(open_image("~/a.png"), picture)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_named_pipe(picture: Image.Image, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(png_bytes(picture),))
    writer.start()
    assert same(open_image(pipe), picture)
    writer.join()


@pytest.mark.parametrize("orientation", range(10))
def test_exif_rotation(picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = png_bytes(picture, exif=exif)
    with Image.open(io.BytesIO(data)) as reference:
        turned = ImageOps.exif_transpose(reference).convert("RGB")
    assert same(open_image(data), turned)
    assert open_image(data).size == ((40, 60) if orientation in (5, 6, 7, 8) else (60, 40))
    assert same(open_image(data, official=True), picture)


def test_broken_exif_counts_as_upright(picture: Image.Image) -> None:
    assert same(open_image(png_bytes(picture, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")), picture)


def test_transparency_lies_over_white() -> None:
    clear, half = (9, 9, 9, 0), (200, 0, 0, 128)
    image = Image.new("RGBA", (2, 1), clear)
    image.putpixel((1, 0), half)
    opened = open_image(png_bytes(image))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (227, 127, 127)]
    dropped = open_image(png_bytes(image), official=True)
    assert [dropped.getpixel((x, 0)) for x in (0, 1)] == [(9, 9, 9), (200, 0, 0)]


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBa"])
def test_other_modes_with_alpha(mode: str) -> None:
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0)) if mode == "RGBa" else Image.new("LA", (2, 2), (0, 0))
    assert open_image(image if mode == "PA" else image.convert(mode)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [(None, (10, 20, 30)), (1, (255, 255, 255)), (b"\xff\x80\x00", (132, 137, 142))],
)
def test_palette(transparency: object, expected: tuple[int, int, int]) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30, 1, 1, 1])
    data = png_bytes(image) if transparency is None else png_bytes(image, transparency=transparency)
    assert open_image(data).getpixel((0, 0)) == expected
    assert open_image(data, official=True).getpixel((0, 0)) == (10, 20, 30)


def test_transparent_colour_of_an_rgb_png() -> None:
    data = png_bytes(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))
    assert open_image(data).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(data, official=True).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bits(name: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 257, 32768, 65535]], dtype=np.uint16)).save(stream, name)
    row = np.asarray(open_image(stream.getvalue()))[0, :, 0]
    assert row.tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 40000, 65535]], np.int32), [0, 156, 255]),
        (np.array([[-5, 0, 5]], np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, np.nan, 200]], np.float32), [0, 0, 200]),
        (np.array([[0, 5e8, 1e9]], np.float32), [0, 128, 255]),
    ],
)
def test_modes_without_a_range(values: np.ndarray, expected: list[int]) -> None:
    assert np.asarray(open_image(Image.fromarray(values)))[0, :, 0].tolist() == expected


def test_cmyk_and_one_bit() -> None:
    stream = io.BytesIO()
    Image.new("CMYK", (9, 9), (0, 255, 255, 0)).save(stream, "JPEG")
    assert open_image(stream.getvalue()).getpixel((4, 4)) == (255, 0, 0)
    assert open_image(png_bytes(Image.new("1", (4, 4), 1))).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
def test_animation_gives_the_first_frame(name: str) -> None:
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(
        stream, name, save_all=True, append_images=frames[1:], **({"lossless": True} if name == "WEBP" else {})
    )
    assert open_image(stream.getvalue()).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (30000, 20), (20, 30000), (30000, 1)])
def test_extreme_sizes_open(size: tuple[int, int]) -> None:
    assert open_image(png_bytes(Image.new("L", size))).size == size


def test_the_callers_image_is_not_changed() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = b"\xff\x80"
    for official in (False, True):
        open_image(image, official=official)
        assert image.mode == "P"
        assert image.info["transparency"] == b"\xff\x80"


def test_opening_from_many_threads(picture: Image.Image) -> None:
    data, results = png_bytes(picture), []
    threads = [threading.Thread(target=lambda: results.append(same(open_image(data), picture))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


def test_missing_file_names_similar_ones(tmp_path: Path, picture: Image.Image) -> None:
    picture.save(tmp_path / "Receipt.PNG")
    with pytest.raises(ImageError, match=r"there is no image at '.*receit\.png'\. Similar names there: Receipt\.PNG"):
        open_image(tmp_path / "receit.png")
    with pytest.raises(ImageError, match=r"Similar names there: Receipt\.PNG"):
        open_image(tmp_path / "receipt.jpeg")
    with pytest.raises(ImageError, match=r"Check the path \(it is looked up from"):
        open_image(tmp_path / "zzz.gif")
    with pytest.raises(ImageError, match=r"the folder '.*nowhere' does not exist"):
        open_image(tmp_path / "nowhere" / "a.png")


def test_folder_device_and_unusable_paths(tmp_path: Path, picture: Image.Image) -> None:
    with pytest.raises(ImageError, match="is a folder. Pass one image file\\.$"):
        open_image(tmp_path)
    picture.save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"is a folder. Pass one image file, for example .*a\.png"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="the image path is empty"):
        open_image(" ")
    with pytest.raises(ImageError, match="cannot read the image .*null.*Check the path"):
        open_image("a\0b")
    with pytest.raises(ImageError, match=r"cannot read the image 'x{77}\.\.\.': File name too long"):
        open_image("x" * 5000)
    if os.path.exists("/dev/zero"):
        with pytest.raises(ImageError, match="is a device, not a file"):
            open_image("/dev/zero")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"the image data is empty \(0 bytes\)"),
        (b"hello, this is text", "it holds text. Pass an image file, and the text as the question"),
        (b"%PDF-1.7", "it is a PDF document. Save its pages"),
        (b"<svg xmlns=", "it is an SVG drawing"),
        (b"<!doctype html>", "it is a web page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript drawing, which is never run here"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "it is a HEIC photo"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "it looks like a video"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x89PNG\r\n\x1a\n", "it starts as a PNG but its header is damaged or cut short"),
        (b"\xff\xd8\xff", "it starts as a JPEG but"),
        (bytes(range(200, 230)), "its first bytes are c8 c9 ca cb cc cd ce cf"),
    ],
)
def test_what_is_not_an_image(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_image(data)


def test_empty_and_truncated_files(tmp_path: Path, picture: Image.Image) -> None:
    empty = tmp_path / "zero.png"
    empty.write_bytes(b"")
    with pytest.raises(ImageError, match=r"'.*zero\.png' is empty \(0 bytes\). Save or copy the image again"):
        open_image(empty)
    for name in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"):
        stream = io.BytesIO()
        picture.save(stream, name)
        cut = tmp_path / f"cut.{name}"
        cut.write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
        with pytest.raises(ImageError, match="cut short|cannot be opened as an image"):
            open_image(cut)


def test_bombs_are_refused() -> None:
    with pytest.raises(
        ImageError, match=r"too large to open safely: it claims 2,500,000,000 pixels; the limit is 178,956,970\."
    ):
        open_image(png_claiming(50000, 50000))
    with pytest.raises(
        ImageError, match=r"has 4,000,000 pixels \(2000x2000\); the limit is 1,000\. Scale it down first\."
    ):
        open_image(png_claiming(2000, 2000), max_pixels=1000)
    with pytest.raises(ImageError, match=r"the PIL image has 100 pixels \(10x10\); the limit is 99"):
        open_image(Image.new("RGB", (10, 10)), max_pixels=99)
    with pytest.raises(OptionError, match="max_pixels must be at least 1, got 0"):
        open_image(b"x", max_pixels=0)
    assert MAX_PIXELS == 178_956_970


def test_large_but_allowed_images_give_no_warning() -> None:
    data = png_claiming(10000, 9500)  # above Pillow's warning, below its error; the data itself is cut short
    with pytest.raises(ImageError, match="cut short"):
        open_image(data)


@pytest.mark.parametrize("url", ["http://example.org/a.png", "HTTPS://example.org/a.png", "s3://bucket/a.png"])
def test_urls_are_refused_with_the_next_step(url: str) -> None:
    with pytest.raises(ImageError, match="is a URL, and images are never downloaded here. Save the image first"):
        open_image(url)


def test_file_urls() -> None:
    with pytest.raises(ImageError, match="is a file URL. Pass the path itself"):
        open_image("file:///tmp/a.png")


def test_data_uris(picture: Image.Image) -> None:
    data = png_bytes(picture)
    standard, safe = base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()
    lines = "\n".join(standard[i : i + 76] for i in range(0, len(standard), 76))
    for payload in (standard, standard.rstrip("="), safe, lines):
        assert decode_data_uri(f"data:image/png;base64,{payload}") == data
    assert decode_data_uri(f"DATA:;charset=x;BASE64,{standard}") == data


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("data:image/png;base64", "has no comma. Expected: data:image/png;base64,<data>"),
        ("data:text/plain;base64,aGk=", "holds 'text/plain', not an image"),
        ("data:image/png,abc", "is not base64"),
        ("data:image/png;base64,a*b=", "is not valid base64"),
        ("data:image/png;base64,A", "is not valid base64"),
        ("data:image/png;base64,é", "is not valid base64"),
        ("data:image/png;base64,", r"the image in the data URI is empty \(0 bytes\)"),
        ("data:image/png;base64,aGVsbG8=", "the image in the data URI is not an image: it holds text"),
    ],
)
def test_bad_data_uris(uri: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_image(uri)


def test_long_strings_are_cut_in_messages() -> None:
    with pytest.raises(ImageError) as caught:
        open_image("data:image/" + "x" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("source", [5, None, ["a.png"], ("a.png",), {"path": "a.png"}])
def test_wrong_types(source: object) -> None:
    with pytest.raises(ImageError, match=f"cannot open an image from {type(source).__name__}. Pass a path"):
        open_image(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3)), r"got float64 of shape \(4, 4, 3\). Scale the values to 0..255"),
        (np.zeros((4, 4, 2), np.uint8), r"got uint8 of shape \(4, 4, 2\)"),
        (np.zeros(4, np.uint8), r"got uint8 of shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"the array of shape \(0, 4, 3\) has no pixels"),
    ],
)
def test_wrong_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        open_image(array)


def test_images_without_pixels_and_closed_images(tmp_path: Path, picture: Image.Image) -> None:
    with pytest.raises(ImageError, match="the PIL image is 0x5: it has no pixels"):
        open_image(Image.new("RGB", (0, 5)))
    picture.save(tmp_path / "a.png")
    closed = Image.open(tmp_path / "a.png")
    closed.close()
    with pytest.raises(ImageError, match="the PIL image is damaged or cut short"):
        open_image(closed)


@pytest.mark.filterwarnings("ignore")  # Pillow's own remarks about broken metadata
def test_damaged_files_never_raise_anything_else(picture: Image.Image) -> None:
    files = []
    for name in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        stream = io.BytesIO()
        picture.save(stream, name)
        files.append(stream.getvalue())
    chance = random.Random(0)
    failed = 0
    for _ in range(300):
        data = bytearray(chance.choice(files))
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            assert open_image(bytes(data), max_pixels=10**7).mode == "RGB"
        except MMError:
            failed += 1
    assert 50 < failed < 300
