"""Invented recipients: `first.last123@domain`, the same ones for the same arguments.

Given names and surnames of several languages, so that display names hold umlauts, kana, Cyrillic and
right-to-left letters while addresses stay ASCII.
"""

from collections.abc import Mapping
from random import Random

from msgspec import Struct


class Person(Struct, frozen=True):
    email: str
    first_name: str
    last_name: str
    city: str


# (as written, as in the address)
FIRST = (
    ("Jürgen", "juergen"), ("Zoë", "zoe"), ("花子", "hanako"), ("太郎", "taro"), ("Мария", "maria"),
    ("Иван", "ivan"), ("שרה", "sara"), ("يوسف", "yusuf"), ("Renée", "renee"), ("Søren", "soeren"),
    ("Łukasz", "lukasz"), ("Ana", "ana"), ("Bruno", "bruno"), ("Clara", "clara"), ("David", "david"),
    ("Emma", "emma"), ("Felix", "felix"), ("Grace", "grace"), ("Hugo", "hugo"), ("Ida", "ida"),
    ("Jonas", "jonas"), ("Kim", "kim"), ("Laura", "laura"), ("Mateo", "mateo"), ("Nina", "nina"),
    ("Oscar", "oscar"), ("Paula", "paula"), ("Quentin", "quentin"), ("Rosa", "rosa"), ("Samuel", "samuel"),
)  # fmt: skip
LAST = (
    ("Müller", "mueller"), ("O'Brien", "obrien"), ("佐藤", "sato"), ("Петрова", "petrova"), ("לוי", "levi"),
    ("حداد", "haddad"), ("Núñez", "nunez"), ("Ångström", "angstroem"), ("Weiß", "weiss"), ("Çelik", "celik"),
    ("Baker", "baker"), ("Costa", "costa"), ("Dubois", "dubois"), ("Evans", "evans"), ("Fischer", "fischer"),
    ("Garcia", "garcia"), ("Hansen", "hansen"), ("Ivanova", "ivanova"), ("Jensen", "jensen"),
    ("Kowalski", "kowalski"), ("Lindgren", "lindgren"), ("Moreau", "moreau"), ("Novak", "novak"),
    ("Okafor", "okafor"), ("Park", "park"), ("Quinn", "quinn"), ("Rossi", "rossi"), ("Smit", "smit"),
)  # fmt: skip
CITIES = ("Lisboa", "Zürich", "München", "京都", "Łódź", "Oslo", "Αθήνα", "Cork", "Québec", "São Paulo")


def people(number: int, domains: Mapping[str, float], seed: int = 1) -> list[Person]:
    """`number` recipients with distinct addresses, spread over `domains` by weight."""
    random = Random(seed)
    names, weights = list(domains), list(domains.values())
    chosen = random.choices(names, weights, k=number)
    made = []
    for index, domain in enumerate(chosen):
        first, last, city = random.choice(FIRST), random.choice(LAST), random.choice(CITIES)
        # The index makes the address distinct; the digits before it only make it look lived in.
        email = f"{first[1]}.{last[1]}{random.randrange(10)}{index}@{domain}"
        made.append(Person(email, first[0], last[0], city))
    return made
