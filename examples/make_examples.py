"""Draws the example images. Run it from anywhere: python examples/make_examples.py

Needs Pillow and the DejaVu fonts (Debian: fonts-dejavu-core).
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent
FONTS = Path("/usr/share/fonts/truetype/dejavu")
INK = (25, 25, 25)


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"{name}.ttf", size)


def receipt() -> Image.Image:
    """A till receipt, 420 x 640: store, date, five items, total."""
    image = Image.new("RGB", (420, 640), (252, 251, 247))
    draw = ImageDraw.Draw(image)
    title, body = font("DejaVuSans-Bold", 28), font("DejaVuSans", 24)
    total = font("DejaVuSans-Bold", 26)
    draw.text((210, 50), "GREEN MARKET", INK, title, anchor="mm")
    draw.text((210, 96), "12 Station Road", INK, body, anchor="mm")
    draw.text((30, 150), "Date: 2026-03-14", INK, body, anchor="lm")
    draw.line((30, 184, 390, 184), INK, 2)
    items = [("Bread", "2.80"), ("Milk", "1.45"), ("Apples", "3.20"), ("Coffee", "6.90"), ("Cheese", "4.75")]
    for row, (name, price) in enumerate(items):
        y = 224 + 54 * row
        draw.text((30, y), name, INK, body, anchor="lm")
        draw.text((390, y), price, INK, body, anchor="rm")
    draw.line((30, 488, 390, 488), INK, 2)
    draw.text((30, 528), "TOTAL", INK, total, anchor="lm")
    draw.text((390, 528), f"{sum(float(price) for _, price in items):.2f}", INK, total, anchor="rm")
    draw.text((210, 594), "Thank you", INK, body, anchor="mm")
    return image


def form() -> Image.Image:
    """A filled-in form, 560 x 420: five labels and their values."""
    image = Image.new("RGB", (560, 420), "white")
    draw = ImageDraw.Draw(image)
    draw.text((30, 44), "Registration", INK, font("DejaVuSans-Bold", 28), anchor="lm")
    rows = [
        ("Name:", "Maria Lopez"),
        ("City:", "Lisbon"),
        ("Phone:", "555 0142"),
        ("Date:", "2026-05-02"),
        ("Order:", "A-1937"),
    ]
    label, value = font("DejaVuSans-Bold", 24), font("DejaVuSans", 24)
    for row, (left, right) in enumerate(rows):
        y = 110 + 62 * row
        draw.text((30, y), left, INK, label, anchor="lm")
        draw.text((190, y), right, INK, value, anchor="lm")
        draw.line((186, y + 20, 530, y + 20), (150, 150, 150), 1)
    return image


def page() -> Image.Image:
    """A few lines of text, 620 x 300."""
    image = Image.new("RGB", (620, 300), "white")
    draw = ImageDraw.Draw(image)
    lines = [
        "The library opens at nine.",
        "Please return all books",
        "to the desk on the left.",
        "Thank you for your visit.",
    ]
    body = font("DejaVuSerif", 28)
    for row, line in enumerate(lines):
        draw.text((36, 54 + 64 * row), line, INK, body, anchor="lm")
    return image


def chart() -> Image.Image:
    """A bar chart, 520 x 400: five bars with their values above them."""
    image = Image.new("RGB", (520, 400), "white")
    draw = ImageDraw.Draw(image)
    draw.text((260, 34), "Visitors in 2025", INK, font("DejaVuSans-Bold", 24), anchor="mm")
    body = font("DejaVuSans", 18)
    left, bottom, top, most = 64, 346, 84, 50
    for tick in range(0, most + 1, 10):
        y = bottom - (bottom - top) * tick // most
        draw.line((left, y, 500, y), (222, 222, 222), 1)
        draw.text((left - 10, y), str(tick), INK, body, anchor="rm")
    values = {"March": 18, "April": 27, "May": 42, "June": 35, "July": 9}
    for column, (month, value) in enumerate(values.items()):
        x, y = left + 46 + 87 * column, bottom - (bottom - top) * value // most
        draw.rectangle((x - 26, y, x + 26, bottom), (70, 120, 190))
        draw.text((x, y - 14), str(value), INK, body, anchor="mm")
        draw.text((x, bottom + 22), month, INK, body, anchor="mm")
    draw.line((left, bottom, 500, bottom), INK, 2)
    return image


def scene() -> Image.Image:
    """A red circle and two blue squares on yellow, 384 x 384."""
    image = Image.new("RGB", (384, 384), (252, 226, 110))
    draw = ImageDraw.Draw(image)
    draw.ellipse((50, 60, 150, 160), (214, 40, 40))
    for x, y in ((220, 120), (255, 250)):
        draw.rectangle((x, y, x + 80, y + 80), (40, 80, 200))
    return image


def main() -> None:
    for draw in (receipt, form, page, chart, scene):
        draw().save(FOLDER / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
