"""Captions of the catalogue records: one structured form, many short forms, sometimes none."""

import random

GENDER = {"Men": ("men", "men's"), "Women": ("women", "women's"), "Unisex": ("unisex", "unisex"),
          "Boys": ("boys", "boys'"), "Girls": ("girls", "girls'")}  # fmt: skip
KIND = {"Sneakers": ("sneakers", "sneaker"), "Slip-On Sneakers": ("slip-on sneakers", "slip-on sneaker"),
        "Loafers": ("loafers", "loafer"), "Flat Boots": ("boots", "boot"), "Boat Shoes": ("boat shoes", "boat shoe"),
        "Trekking Shoes": ("trekking shoes", "trekking shoe"), "Skate Shoes": ("skate shoes", "skate shoe"),
        "Derbys": ("derby shoes", "derby shoe"), "Ballerinas": ("ballerinas", "ballerina")}  # fmt: skip
GROUND = ("centered on white background", "on white background", "on a white background", "white background",
          "isolated on white")  # fmt: skip
OPENING = ("a photo of", "photo of", "a picture of", "a product photo of", "an image of", "product photo,", "studio photo of",
           "a", "", "", "", "")  # fmt: skip
DROP_ALL, STRUCTURED = 0.10, 0.50


def colour_words(record, rng=random):
    """The colour as people write it."""
    c = record["colour"].lower()
    if c == "grey" and rng.random() < 0.3:
        return "gray"
    if c == "navy blue" and rng.random() < 0.25:
        return "navy"
    return c


def structured(colour, season="", gender="", brand="", material=""):
    """The form a dataset preset writes; parts that are not known are left out."""
    what = " ".join(w for w in (colour.lower(), material.lower(), "casual shoes") if w)
    parts = [f"A professional product photo of {what}"]
    parts += [f"{season.lower()} collection"] if season else []
    parts += [gender.lower()] if gender else []
    parts += [brand] if brand else []
    return ", ".join(parts + ["centered on white background"])


def caption(record, rng=random):
    """A random caption of a record (a different one each time it is seen)."""
    if rng.random() < DROP_ALL:
        return ""
    attributes = record.get("articleAttributes") or {}
    material = (attributes.get("Material") or "").lower()
    brand, season = record.get("brandName") or "", (record.get("season") or "").lower()
    plural, possessive = GENDER.get(record.get("gender"), ("", ""))
    colour = colour_words(record, rng)
    known = lambda value, p: value if value and rng.random() < p else ""
    if rng.random() < STRUCTURED:
        return structured(colour, known(season, 0.8), known(plural, 0.8), known(brand, 0.4), known(material, 0.5))
    one = rng.random() < 0.4  # "a red shoe" / "red shoes"
    kinds = KIND.get(attributes.get("Type"))
    noun = ("shoes", "shoe")[one]
    if kinds and rng.random() < 0.5:
        noun = kinds[one]
    elif rng.random() < 0.25:
        noun = ("casual shoes", "casual shoe")[one]
    elif rng.random() < 0.25:
        noun = ("sneakers", "sneaker")[one]
    words = [known(possessive, 0.25), known(brand, 0.15), colour if rng.random() < 0.95 else "", known(material, 0.25), noun]
    if rng.random() < 0.15:
        words = words[1:2] + words[:1] + words[2:]
    head = f"{rng.choice(OPENING)} {' '.join(w for w in words if w)}".strip()
    tail = [known(t, p) for t, p in ((f"{season} collection", 0.15), (plural, 0.1), (brand, 0.15), (rng.choice(GROUND), 0.4))]
    tail = [t for t in tail if t]
    rng.shuffle(tail)
    if rng.random() < 0.1:
        return ", ".join([colour, noun, *tail])
    return ", ".join([head, *tail])
