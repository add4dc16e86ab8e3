"""Tables: a header row and cells, with or without lines."""

from mm.synthetic.draft import Draft, Job
from mm.synthetic.layout import Element, Gap, Grid, Line
from mm.synthetic.money import cents, date_text, money_style
from mm.synthetic.questions import ask, spoken
from mm.synthetic.sample import Turn
from mm.synthetic.words import letter_case

_HEADS = {
    "name": ("Name", "Item", "Product", "Person", "City", "Team", "Part", "Project", "Country"),
    "number": ("Qty", "Count", "Units", "Score", "Points", "Age", "Rank", "Stock", "Year", "Pages", "Hours"),
    "money": ("Price", "Amount", "Cost", "Total", "Fee", "Sales", "Budget"),
    "percent": ("Share", "Rate", "Change", "Growth", "Margin"),
    "date": ("Date", "Due", "Start", "End", "Updated"),
    "code": ("Code", "ID", "SKU", "Ref", "Batch"),
    "status": ("Status", "State", "Result", "Type"),
    "word": ("Group", "Label", "Area", "Topic", "Owner"),
}


def _key(job: Job, head: str) -> str:
    dice, words = job.dice, job.words
    match head:
        case "Item" | "Product" | "Part":
            return words.entry(dice, "items")
        case "Person" | "Name":
            return words.person(dice)
        case "City" | "Country":
            return words.entry(dice, "cities" if head == "City" else "countries")
        case _:
            return words.title(dice, 1)


def table(job: Job) -> Draft:
    """A table of 1 to 12 rows and 2 to 6 columns whose first column names the row."""
    dice, style, words = job.dice, job.style, job.words
    money, decimals = money_style(dice, style.extras), dice.chance(0.3)
    across = max(2, min(6, job.budget.columns // 11, dice.integer(2, 6)))
    down = max(1, min(job.budget.lines - 3, dice.integer(2, 12)))
    kinds = dice.sample([kind for kind in _HEADS if kind != "name"], across - 1)
    heads = [dice.pick(_HEADS["name"])]
    heads += [dice.pick(_HEADS[kind]) if dice.chance(0.85) else words.title(dice, 1) for kind in kinds]

    def cell(kind: str) -> str:
        match kind:
            case "number":
                return f"{dice.integer(0, 999)}{'.' + dice.digits(1) if decimals else ''}"
            case "money":
                return money.full(cents(dice) * dice.pick([1, 10]))
            case "percent":
                return f"{dice.pick(['', '', '-', '+'])}{dice.integer(0, 100)}.{dice.digits(1)}%"
            case "date":
                return date_text(dice)
            case "code":
                return words.code(dice)
            case "status":
                return words.entry(dice, "status")
            case _:
                return words.word(dice)

    rows: list[list[str]] = []
    names: set[str] = set()
    for _ in range(down * 3):
        name = _key(job, heads[0])
        if len(rows) < down and name.lower() not in names:
            names.add(name.lower())
            rows.append([name, *(cell(kind) for kind in kinds)])
    case = letter_case(dice)
    heads = [case(head) for head in heads]
    figures = {"number", "money", "percent"}
    aligns = "l" + "".join(dice.pick("rrc") if kind in figures else dice.pick("llc") for kind in kinds)
    body = style.pen()
    bar = style.panel if dice.chance(0.3) else None
    grid = Grid(
        rows=[heads, *rows],
        aligns=aligns,
        pens=[style.pen("bold") if dice.chance(0.6) else body] + [body] * len(rows),
        gap=dice.uniform(0.9, 2.5),
        lines=dice.weighted({"all": 3, "rows": 2, "head": 2, "": 1.5}),
        bar=bar,
        stripe=style.panel if dice.chance(0.15) else None,
        pad=dice.pick([0.0, 0.2, 0.5, 0.8]),
    )
    elements: list[Element] = []
    turns: list[Turn] = []
    fields: dict[str, str] = {}
    if job.budget.lines > 5 and dice.chance(0.45):
        title = letter_case(dice)(words.title(dice, dice.integer(1, 3)))
        elements += [Line(title, style.pen("head", dice.uniform(1.0, 1.5)), dice.pick(["left", "center"])), Gap(0.4)]
        turns.append(ask(dice, "title", title))
        fields["title"] = title
    elements.append(grid)
    for row in dice.sample(rows, 4):
        column = dice.integer(1, across - 1)
        turns.append(ask(dice, "cell", row[column], row=row[0], column=spoken(dice, heads[column])))
        fields[f"{heads[column]} of {row[0]}"] = row[column]
    turns.append(ask(dice, "rows", str(len(rows))))
    turns.append(ask(dice, "columns", " ".join(heads)))
    return Draft(elements, turns, fields, None, job.budget.width if dice.chance(0.25) else None)
