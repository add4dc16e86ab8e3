"""Elements of forms: fields in several arrangements, check boxes, frames, bar codes."""

from collections.abc import Sequence
from dataclasses import dataclass

from mm.synthetic.dice import Dice
from mm.synthetic.fonts import Colour, Pen
from mm.synthetic.layout import Element, fill_run, next_baseline
from mm.synthetic.page import Page
from mm.synthetic.style import Style


@dataclass(frozen=True)
class Field:
    """A label with its value, both as printed (the label without its colon); an empty value is a field left blank."""

    label: str
    value: str
    kind: str = "words"  # type of the value (mm.synthetic.fields.labels)
    before: str = ""  # printed before the label: "3. "
    hint: str = ""  # printed behind the label: " (optional)"
    lines: tuple[str, ...] = ()  # the value on several rows, where it does not stand on one
    wide: bool = False  # takes the width of all columns

    @property
    def rows(self) -> tuple[str, ...]:
        """The value row by row."""
        return self.lines or (self.value,)


@dataclass(frozen=True)
class FieldRows:
    """Fields in ``across`` columns, all in one arrangement."""

    fields: Sequence[Field]
    across: int
    form: str  # inline, aligned, flush, right, leader, above, below, boxed, underline, cells
    label_pen: Pen
    value_pen: Pen
    colon: str
    label_ink: Colour
    pad: float  # extra space below a row, em
    gap: float = 1.5  # between columns, em
    tab: float = 0.8  # between the labels' column and the values (aligned), em
    ruled: bool = False  # a line below each value (aligned)
    value_ink: Colour | None = None
    shade: Colour | None = None  # behind the labels (cells)
    leader: str = "."  # between label and value (leader)
    enclosed: bool = False  # the box holds the label too, and the boxes touch (boxed)

    def _label(self, field: Field) -> str:
        return field.before + field.label + field.hint + self.colon

    def _value_width(self, field: Field) -> float:
        return max(self.value_pen.width(row) for row in field.rows)

    def _label_width(self) -> float:
        return max(self.label_pen.width(self._label(field)) for field in self.fields)

    def _field_width(self, field: Field, style: Style) -> float:
        label, value = self.label_pen.width(self._label(field)), self._value_width(field)
        em = style.em
        match self.form:
            case "above" | "below":
                return max(label, value)
            case "boxed":
                return max(label + em * self.enclosed, value + em)
            case "aligned" | "flush":
                return self._label_width() + self.tab * em + value
            case "cells":
                return self._label_width() + value + 2.4 * em
            case "leader":
                return label + 4 * em + value
            case "underline":
                return label + 0.5 * em + value + em
            case "right":
                return label + 1.5 * em + value
            case _:
                return label + max(self.label_pen.advance(" "), 0.3 * em) + value

    def natural_width(self, style: Style) -> float:
        widest = max(self._field_width(field, style) for field in self.fields)
        return widest * self.across + self.gap * style.em * (self.across - 1)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        step = (width + self.gap * style.em) / self.across
        column = step - self.gap * style.em
        for fields in self._in_rows():
            row = [(x + index * step, field) for index, field in enumerate(fields)]
            room = width if fields[0].wide else column
            if self.form in {"above", "below", "boxed"}:
                self._place_stacked(page, style, row, room)
            elif self.form == "cells":
                self._place_cells(page, style, row, room)
            else:
                self._place_inline(page, style, row, room)
            page.top += self.pad * style.em

    def _in_rows(self) -> list[list[Field]]:
        """The fields of each row: as many as there are columns, or a wide one."""
        rows: list[list[Field]] = []
        for field in self.fields:
            if not rows or field.wide or rows[-1][0].wide or len(rows[-1]) == self.across:
                rows.append([])
            rows[-1].append(field)
        return rows

    def _place_inline(self, page: Page, style: Style, row: list[tuple[float, Field]], column: float) -> None:
        larger = max(self.label_pen, self.value_pen, key=lambda pen: pen.size)
        baseline, thin = next_baseline(page, style, larger), max(1, round(style.em / 16))
        ink = self.value_ink or style.ink
        starts = []
        for x, field in row:
            label = self._label(field)
            wide = self.label_pen.width(label)
            page.text(
                x + (self._label_width() - wide if self.form == "flush" else 0.0),
                *(baseline, label, self.label_pen, self.label_ink),
            )
            end = x + wide
            tabbed = x + self._label_width() + self.tab * style.em
            at = {
                "aligned": tabbed,
                "flush": tabbed,
                "right": x + column - self._value_width(field),
                "leader": x + column - self._value_width(field),
                "underline": end + 0.8 * style.em,
            }.get(self.form, end + max(self.label_pen.advance(" "), 0.3 * style.em))
            page.text(at, baseline, field.rows[0], self.value_pen, ink)
            starts.append(at)
            if self.form == "underline" or (self.form == "aligned" and self.ruled):
                y = baseline + self.value_pen.descent + 1
                page.shape("line", (at - 0.4 * style.em, y, x + column, y), style.accent, thin)
            if self.form == "leader":
                fill_run(
                    page, self.label_pen, self.leader, end + 0.4 * style.em, at - 0.4 * style.em, baseline, style.soft
                )
        self._place_rest(page, style, row, starts)

    def _place_rest(self, page: Page, style: Style, row: list[tuple[float, Field]], starts: list[float]) -> None:
        """The further rows of values that have several."""
        for index in range(1, max(len(field.rows) for _, field in row)):
            baseline = next_baseline(page, style, self.value_pen)
            for (_, field), start in zip(row, starts, strict=True):
                text = field.rows[index] if index < len(field.rows) else ""
                page.text(start, baseline, text, self.value_pen, self.value_ink or style.ink)

    def _place_cells(self, page: Page, style: Style, row: list[tuple[float, Field]], column: float) -> None:
        """A ruled cell for each label and one for its value."""
        larger = max(self.label_pen, self.value_pen, key=lambda pen: pen.size)
        thin, top, inset = max(1, round(style.em / 16)), page.top, 0.5 * style.em
        page.top += 0.15 * style.em
        baseline = next_baseline(page, style, larger)
        starts = [x + self._label_width() + 3 * inset for x, _ in row]
        for (x, field), start in zip(row, starts, strict=True):
            page.text(x + inset, baseline, self._label(field), self.label_pen, self.label_ink)
            page.text(start, baseline, field.rows[0], self.value_pen, self.value_ink or style.ink)
        self._place_rest(page, style, row, starts)
        page.top += 0.25 * style.em
        for (x, _), start in zip(row, starts, strict=True):
            if self.shade is not None:
                page.shape("fill", (x, top, start - inset, page.top), self.shade)
            page.shape("frame", (x, top, start - inset, page.top), style.accent, thin)
            page.shape("frame", (start - inset, top, x + column, page.top), style.accent, thin)
        page.top -= self.pad * style.em  # the cells of a table touch

    def _place_stacked(self, page: Page, style: Style, row: list[tuple[float, Field]], column: float) -> None:
        thin = max(1, round(style.em / 16))
        first, second = self.label_pen, self.value_pen
        if self.form == "below":
            first, second = second, first
        box_top = page.top
        page.top += 0.1 * style.em if self.enclosed else 0.0
        upper = next_baseline(page, style, first)
        page.top += 0.15 * style.em if self.form == "boxed" and not self.enclosed else 0.0
        top = box_top if self.enclosed else page.top
        lower = next_baseline(page, style, second)
        page.top += 0.2 * style.em if self.form == "boxed" else 0.0
        for x, field in row:
            inset = 0.5 * style.em if self.form == "boxed" else 0.0
            at_label, at_value = (lower, upper) if self.form == "below" else (upper, lower)
            page.text(
                x + (inset if self.enclosed else 0.0), at_label, self._label(field), self.label_pen, self.label_ink
            )
            page.text(x + inset, at_value, field.value, self.value_pen, self.value_ink or style.ink)
            if self.form == "boxed":
                right = x + column + (self.gap * style.em if self.enclosed and x < row[-1][0] else 0.0)
                page.shape("frame", (x, top, right, page.top), style.accent, thin)
        if self.enclosed:
            page.top -= self.pad * style.em  # the boxes touch


@dataclass(frozen=True)
class CheckRow:
    """Options with a box before each, ticked or not; ``drawn`` boxes are shapes, others are ``[x]`` in print."""

    options: Sequence[tuple[str, bool]]
    pen: Pen
    drawn: bool

    def _width(self, label: str, style: Style) -> float:
        return self.pen.width(label) + (1.3 * style.em if self.drawn else self.pen.width("[x] ")) + 1.5 * style.em

    def natural_width(self, style: Style) -> float:
        return sum(self._width(label, style) for label, _ in self.options)

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        baseline, thin = next_baseline(page, style, self.pen), max(1, round(style.em / 14))
        for label, ticked in self.options:
            mark = "[x]" if ticked else "[ ]"
            if self.drawn:
                side = 0.75 * style.em
                box = (x, baseline - side, x + side, baseline)
                page.shape("frame", box, style.ink, thin)
                if ticked:
                    page.shape("line", (box[0], box[1], box[2], box[3]), style.ink, thin + 1)
                    page.shape("rise", (box[0], box[1], box[2], box[3]), style.ink, thin + 1)
                page.mark(x, baseline, mark)
                page.text(x + 1.3 * style.em, baseline, label, self.pen, style.ink)
            else:
                page.text(x, baseline, f"{mark} {label}", self.pen, style.ink)
            x += self._width(label, style)


@dataclass(frozen=True)
class Framed:
    """Elements inside a frame (a card, a label)."""

    inside: Sequence[Element]
    kind: str  # frame or round_frame
    pad: float  # em

    def natural_width(self, style: Style) -> float:
        return max(element.natural_width(style) for element in self.inside) + 2 * self.pad * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        pad, top = self.pad * style.em, page.top
        page.top += pad
        for element in self.inside:
            element.place(page, style, x + pad, width - 2 * pad)
        page.top += pad
        page.shape(self.kind, (x, top, x + width, page.top), style.accent, max(1, round(style.em / 10)))


@dataclass(frozen=True)
class WithPhoto:
    """Elements at the right of the place of a photograph, ``size`` em wide."""

    inside: Sequence[Element]
    size: float

    def natural_width(self, style: Style) -> float:
        return max(element.natural_width(style) for element in self.inside) + (self.size + 1.0) * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        wide, top = self.size * style.em, page.top + 0.2 * style.em
        tall, third = 1.25 * wide, wide / 3
        page.shape("fill", (x, top, x + wide, top + tall), style.panel)
        page.shape("ellipse", (x + third, top + 0.2 * tall, x + 2 * third, top + 0.2 * tall + third), style.soft)
        page.shape("round", (x + 0.2 * wide, top + 0.62 * tall, x + 0.8 * wide, top + tall), style.soft)
        page.shape("frame", (x, top, x + wide, top + tall), style.accent, max(1, round(style.em / 16)))
        for element in self.inside:
            element.place(page, style, x + wide + style.em, width - wide - style.em)
        page.top = max(page.top, top + tall + 0.3 * style.em)


@dataclass(frozen=True)
class Barcode:
    """Bars of random widths, or a square of random modules; a picture without text."""

    bars: Sequence[bool]
    side: int  # modules a side of a square code, 0 for bars
    height: float  # em

    @classmethod
    def draw(cls, dice: Dice) -> "Barcode":
        """Draw a code of either kind."""
        side = dice.pick([21, 25, 29]) if dice.chance(0.35) else 0
        count = side * side if side else dice.integer(50, 95)
        return cls(
            (dice.rng.random(count) < 0.5).tolist(), side, dice.uniform(4.0, 6.0) if side else dice.uniform(1.5, 3.5)
        )

    def natural_width(self, style: Style) -> float:
        return self.height * style.em if self.side else 8.0 * style.em

    def place(self, page: Page, style: Style, x: float, width: float) -> None:
        per_row = self.side or len(self.bars)
        page.top += 0.4 * style.em
        across = self.height * style.em if self.side else min(width, 14 * style.em)
        step = max(1, int(across / per_row))
        left, tall = x + (width - step * per_row) / 2, step if self.side else round(self.height * style.em)
        rows = self.side or 1
        for index, bar in enumerate(self.bars):
            if bar:
                bx, by = left + index % per_row * step, page.top + index // per_row * tall
                page.shape("fill", (bx, by, bx + step - 1, by + tall - 1), style.ink)
        page.top += rows * tall + 0.4 * style.em
