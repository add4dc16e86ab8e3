"""The fields of the held-out forms: labels, what is written for them, and the questions about them.

Questions are only asked on fields whose values cannot be guessed; labels that could be mistaken for each other do not
meet on one form.
"""

from collections.abc import Callable

from numpy.random import Generator

from mm.evaluation import held_out_words as words
from mm.evaluation.held_out_canvas import Question, wording
from mm.evaluation.held_out_words import pick

VALUE_PROMPTS = (
    *("What is the {}?", "What is the value of {}?", "What is written for {}?"),
    *("What does it say for {}?", "Which {} is given?"),
)

_RANKS = ("Senior", "Junior", "Deputy", "Assistant")
_POSTS = ("officer", "analyst", "keeper")
_TRADES = ("manager", "clerk", "engineer", "designer", "inspector")
_LEVELS = ("Basic", "Advanced", "Practical")
_SUBJECTS = ("design", "repair", "law")

Field = tuple[str, str]
MAKERS: dict[str, Callable[[Generator], str]] = {
    "Full name": words.person,
    "Name": words.person,
    "First name": words.first_name,
    "Last name": words.last_name,
    "Surname": words.last_name,
    "Given name": words.first_name,
    "Date of birth": lambda rng: words.day(rng, 1935, 2012),
    "Birth date": lambda rng: words.day(rng, 1935, 2012),
    "Place of birth": words.place,
    "Address": words.street,
    "Street address": words.street,
    "City": words.place,
    "Town": words.place,
    "Postal code": words.postcode,
    "ZIP code": lambda rng: words.code(rng, "00000"),
    "Phone": words.phone,
    "Telephone": words.phone,
    "Mobile number": words.phone,
    "Email": words.email,
    "E-mail": words.email,
    "Occupation": lambda rng: f"{pick(rng, words.THINGS)} {pick(rng, _TRADES)}".capitalize(),
    "Employer": lambda rng: f"{words.last_name(rng)} {pick(rng, ('Ltd', 'GmbH', 'Inc', 'and Sons', 'Group'))}",
    "School": lambda rng: f"{words.place(rng)} {pick(rng, ('High School', 'College', 'Academy', 'Primary School'))}",
    "Department": lambda rng: (
        f"{pick(rng, words.THINGS)} {pick(rng, ('services', 'planning', 'control', 'office'))}".capitalize()
    ),
    "Position": lambda rng: f"{pick(rng, _RANKS)} {pick(rng, words.THINGS)} {pick(rng, _POSTS)}",
    "Passport no.": lambda rng: words.code(rng, "A0000000"),
    "Member ID": lambda rng: words.code(rng, pick(rng, ("AA-0000", "M000000", "0000-0000"))),
    "Customer number": lambda rng: words.code(rng, pick(rng, ("00000000", "C-00000", "K 000 000"))),
    "Patient ID": lambda rng: words.code(rng, pick(rng, ("P-000000", "00-000-00", "AA00000"))),
    "Insurance no.": lambda rng: words.code(rng, pick(rng, ("A000000000", "000-00-0000", "AA 00 00 00 A"))),
    "Policy number": lambda rng: words.code(rng, pick(rng, ("AA-000000-0", "POL00000", "00/0000/A"))),
    "Physician": lambda rng: f"Dr. {words.last_name(rng)}",
    "Blood type": lambda rng: pick(rng, ("A+", "A-", "B+", "B-", "AB+", "0+", "0-")),
    "Height": lambda rng: f"{int(rng.integers(148, 205))} cm",
    "Weight": lambda rng: f"{int(rng.integers(42, 118))} kg",
    "Allergies": lambda rng: pick(rng, (*words.FOODS, "none")).capitalize(),
    "Emergency contact": words.person,
    "Date of visit": lambda rng: words.day(rng, 2015, 2031),
    "Start date": lambda rng: words.day(rng, 2015, 2031),
    "Date": lambda rng: words.day(rng, 2015, 2031),
    "Salary": lambda rng: f"{int(rng.integers(22, 120)) * 500:,}",
    "Languages": lambda rng: ", ".join(
        str(x) for x in rng.permutation(["English", "German", "Spanish", "French", "Arabic"])[:2]
    ),
    "Nationality": lambda rng: pick(
        rng, ("Irish", "Danish", "Canadian", "Polish", "Kenyan", "Chilean", "Korean", "Dutch", "Greek")
    ),
    "Vehicle": lambda rng: f"{words.invented(rng, 2)} {pick(rng, ('GT', 'Sport', 'Van', '200', 'XL'))}",
    "Plate number": lambda rng: words.code(rng, pick(rng, ("AAA-000", "AA 000 AA", "00-AA-00"))),
    "Room": lambda rng: words.code(rng, pick(rng, ("000", "A-00", "0.00"))),
    "Host": words.person,
    "Company": lambda rng: f"{words.last_name(rng)} {pick(rng, ('Systems', 'Logistics', 'Partners', 'Textiles'))}",
    "Course": lambda rng: f"{pick(rng, _LEVELS)} {pick(rng, words.THINGS)} {pick(rng, _SUBJECTS)}",
    "Fee": lambda rng: f"{int(rng.integers(5, 600))}.{pick(rng, ('00', '50'))}",
    "IBAN": lambda rng: words.code(rng, "AA00 0000 0000 0000"),
    "Account holder": words.person,
}
# Too few possible values to show that something was read: never asked for.
_GUESSABLE = {"Blood type", "Nationality", "Languages", "Allergies"}

_PERSONAL = (
    "Date of birth",
    "Place of birth",
    "Address",
    "City",
    "Postal code",
    "Phone",
    "Email",
    "Occupation",
    "Nationality",
)
_TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "registration": (
        ("Registration form", "Course registration", "Event registration", "Enrolment"),
        (
            "Full name",
            "First name",
            "Last name",
            *_PERSONAL,
            "School",
            "Course",
            "Fee",
            "Start date",
            "Mobile number",
            "Languages",
        ),
    ),
    "patient": (
        ("Patient information", "New patient form", "Medical history", "Clinic intake form"),
        (
            *(
                "Name",
                "Surname",
                "Given name",
                "Patient ID",
                "Insurance no.",
                "Physician",
                "Blood type",
                "Height",
                "Weight",
            ),
            *("Allergies", "Emergency contact", "Date of visit", "Birth date", "Telephone", "Town", "Street address"),
        ),
    ),
    "application": (
        ("Application form", "Job application", "Application for membership", "Loan application"),
        (
            *(
                "Full name",
                "Surname",
                "Given name",
                *_PERSONAL,
                "Employer",
                "Position",
                "Department",
                "Salary",
                "Start date",
            ),
            *("Passport no.", "Account holder", "IBAN", "Member ID"),
        ),
    ),
    "visitor": (
        ("Visitor registration", "Visitor pass", "Parking permit", "Gate pass"),
        (
            "Name",
            "Company",
            "Host",
            "Room",
            "Date",
            "Vehicle",
            "Plate number",
            "Telephone",
            "Department",
            "Customer number",
        ),
    ),
    "insurance": (
        ("Claim form", "Insurance claim", "Accident report", "Change of address"),
        (
            "Full name",
            "Policy number",
            "Customer number",
            "Date",
            "Town",
            "Street address",
            "ZIP code",
            "E-mail",
            "Vehicle",
            "Plate number",
        ),
    ),
}
_CLASHES = (
    {"Full name", "Name", "First name", "Given name", "Account holder"},
    {"Last name", "Surname", "Name", "Full name"},
)


def draw_fields(rng: Generator, count: int) -> tuple[str, list[Field]]:
    """A heading and at most ``count`` fields of one topic."""
    headings, labels = _TOPICS[pick(rng, tuple(_TOPICS))]
    chosen: list[str] = []
    for place in rng.permutation(len(labels)):
        label = labels[int(place)]
        if any(label in clash and clash & set(chosen) for clash in _CLASHES):
            continue
        chosen.append(label)
    chosen = sorted(chosen[:count], key=lambda label: ("ame" not in label, labels.index(label)))
    return pick(rng, headings), [(label, MAKERS[label](rng)) for label in chosen]


def field_questions(rng: Generator, fields: list[Field]) -> tuple[Question, ...]:
    """Two questions, on fields whose values cannot be guessed."""
    asked = [(label, value) for label, value in fields if label not in _GUESSABLE]
    chosen = rng.permutation(len(asked))[:2]
    pairs = [asked[int(place)] for place in chosen]
    return tuple(
        Question("value", wording(rng, VALUE_PROMPTS).format(label), value, about=label) for label, value in pairs
    )
