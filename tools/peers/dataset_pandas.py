#!/usr/bin/env python3
"""The same work as `atelier dataset analyze` and `prepare`, as one would write it with pandas and Pillow.

    python tools/peers/dataset_pandas.py --atelier target/release/atelier --csv styles.csv --images DIR [--styles DIR]

Runs both on the same files, one after the other, and prints rows/s and images/s of each with the ratio.
The rows: read the table, count the values of six columns, three cross tables, missing values, one pass of the filter.
The documents (with --styles): the same of a folder of style documents. The images (measure): decode, border colour,
sharpness, difference hash. The images (prepare): decode, Lanczos to a square on the photo's background, PNG.
Rows are the best of seven processes of each, all of them new, in turn: what each says itself of reading and counting
(after its imports, with the file in the page cache), and the whole from start to end, with `import pandas` on one side,
and reports, figures and fsync on the other. A third line has pandas read and count in a process that did so before.
Documents are the best of seven runs of each.
"""
import argparse
import html
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

ATTRIBUTES = ["baseColour", "gender", "brandName", "season", "year", "usage"]
RUNS = 7
CROSS = [("baseColour", "gender"), ("baseColour", "season"), ("gender", "season")]


def count(table: pd.DataFrame) -> int:
    chosen = table[table["articleType"].notna()]
    for name in ATTRIBUTES:
        chosen[name].value_counts(dropna=False)
    for a, b in CROSS:
        pd.crosstab(chosen[a], chosen[b])
    chosen.isna().sum()
    return len(table)


def rows(path: Path) -> int:
    # Without dtype=str, which says what is meant but takes pandas 3 three times as long.
    return count(pd.read_csv(path))


def style(path: Path) -> dict:
    data = json.loads(path.read_bytes())["data"]
    flat = {k: v for k, v in data.items() if not isinstance(v, (dict, list))}
    flat |= {k: (data.get(k) or {}).get("typeName") for k in ("masterCategory", "subCategory", "articleType")}
    attributes = data.get("articleAttributes") or {}
    flat |= {f"articleAttributes.{k}": v for k, v in attributes.items()} if isinstance(attributes, dict) else {}
    described = data.get("productDescriptors") or {}
    # Descriptions are HTML.
    return flat | {k: re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", v.get("value") or ""))).strip()
                   for k, v in described.items() if isinstance(v, dict)}


def documents(folder: Path) -> int:
    return count(pd.DataFrame([style(p) for p in sorted(folder.glob("*.json"))]).replace("NA", np.nan))


def opened(path: Path) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def border(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])


def measure(path: Path) -> tuple:
    image = opened(path)
    pixels = np.asarray(image)
    ring = border(pixels).astype(np.int16)
    median = np.median(ring, axis=0)
    clean = (np.abs(ring - median).max(axis=1) <= 12).mean()
    grey = np.asarray(image.convert("L")).astype(np.float64)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    small = np.asarray(image.convert("L").resize((17, 16), Image.Resampling.BOX)).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1] + 2).flatten()
    product = np.abs(pixels.astype(np.int16) - median).max(axis=2) > 28
    box = (product.any(axis=0).argmax(), product.any(axis=1).argmax())
    return image.size, clean, laplacian.var(), bits, box


def pairs(measures: list) -> int:
    hashes = np.array([m[3] for m in measures])
    return sum(int(((hashes[i + 1:] != hashes[i]).sum(axis=1) <= 12).sum()) for i in range(len(hashes)))


def prepare(path: Path, out: Path, size: int) -> None:
    image = opened(path)
    colour = tuple(int(v) for v in np.median(border(np.asarray(image)), axis=0))
    scale = size / max(image.size)
    image = image.resize([max(1, round(v * scale)) for v in image.size], Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), colour)
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    square.save(out / f"{path.stem}.png")


DEFINITION = """schema_version: 1
title: Benchmark
layout: {{kind: {kind}, records: "{records}", images: ["{images}"]}}
filter: articleType is present
attributes: [{attributes}]
cross: [{cross}]
split: {{stratify: [baseColour, gender, season]}}
images: {{size: {size}}}
captions: {{templates: {{en: [{{text: "A photo of {{baseColour|lower}} {{articleType|lower}}"}}]}}}}
"""


def definition(kind: str, records: Path, images: str, size: int) -> str:
    return DEFINITION.format(kind=kind, records=records, images=images, size=size, attributes=", ".join(ATTRIBUTES),
                             cross=", ".join(f"[{x}, {y}]" for x, y in CROSS))


def atelier(exe: str, work: Path, *args: str) -> dict:
    out = subprocess.run([exe, "dataset", *args, "--json"], cwd=work, capture_output=True, text=True, check=False)
    if out.returncode:
        sys.exit(out.stdout + out.stderr)
    return json.loads(out.stdout)


def timed(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def best(work) -> float:
    return min(work() for _ in range(RUNS))


def processes(*sides) -> list:
    """New processes of each side in turn; the best of what they say of reading and counting, and of the whole of them."""
    runs = [[] for _ in sides]
    for _ in range(RUNS):
        for side, seconds in zip(sides, runs):
            began = time.perf_counter()
            said = side()
            seconds.append((said, time.perf_counter() - began))
    return [tuple(map(min, zip(*seconds))) for seconds in runs]


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--atelier", required=True, help="the executable, built with --release")
    args.add_argument("--csv", required=True, type=Path)
    args.add_argument("--images", required=True, type=Path, help="folder of <id>.jpg that the table names")
    args.add_argument("--styles", type=Path, help="folder of style documents")
    args.add_argument("--size", type=int, default=512)
    args.add_argument("--json", action="store_true")
    # A process of its own: reads and counts one table, and says how many seconds that took.
    args.add_argument("--only-rows", action="store_true", help=argparse.SUPPRESS)
    a = args.parse_args()
    if a.only_rows:
        print(timed(lambda: rows(a.csv)))
        return
    exe = str(Path(a.atelier).resolve())
    table, folder = a.csv.resolve(), a.images.resolve()
    known = set(pd.read_csv(table, dtype=str)["id"])
    images = sorted(p for p in folder.iterdir() if p.stem in known)
    results = {}
    with tempfile.TemporaryDirectory() as t:
        work = Path(t)
        (work / "d.yaml").write_text(definition("myntra-csv", table, str(folder), a.size))
        (work / "rows.yaml").write_text(definition("myntra-csv", table, "none", a.size))

        # The engine's own time for reading and counting, without figures; both have the files in the page cache.
        def counted(name: str) -> float:
            return atelier(exe, work, "analyze", name, "--in", ".", "--out", "r")["timings"]["records"]

        alone = [sys.executable, __file__, "--only-rows", "--atelier", exe, "--csv", str(table), "--images", "."]
        theirs, ours = processes(lambda: float(subprocess.run(alone, check=True, capture_output=True).stdout),
                                 lambda: counted("rows.yaml"))
        count_of = rows(table)
        results["rows/s"] = (count_of / theirs[0], count_of / ours[0])
        results["rows/s, processes"] = (count_of / theirs[1], count_of / ours[1])
        results["rows/s, pandas warm"] = (count_of / best(lambda: timed(lambda: rows(table))), count_of / ours[0])
        if a.styles:
            (work / "styles.yaml").write_text(definition("myntra-json", a.styles.resolve(), "none", a.size))
            n = documents(a.styles)
            results["documents/s"] = (n / best(lambda: timed(lambda: documents(a.styles))),
                                      n / best(lambda: counted("styles.yaml")))

        # The photos, measured.
        def all_measures():
            pairs([measure(p) for p in images])
        theirs = timed(all_measures)
        ours = atelier(exe, work, "analyze", "d.yaml", "--in", ".", "--out", "m")["timings"]["photos"]
        results["images/s measured"] = (len(images) / theirs, len(images) / ours)
        # The photos, prepared: the whole command, with splits, captions, digests and fsync.
        target = work / "theirs"
        target.mkdir()
        theirs = timed(lambda: [prepare(p, target, a.size) for p in images])
        ours = timed(lambda: atelier(exe, work, "prepare", "d.yaml", "--in", ".", "--out", "p"))
        results["images/s prepared"] = (len(images) / theirs, len(images) / ours)
    if a.json:
        print(json.dumps({k: {"pandas_pillow": p, "atelier": o, "ratio": o / p} for k, (p, o) in results.items()}, indent=2))
        return
    print(f"{count_of} rows, {len(images)} images\n{'':<20}{'pandas+Pillow':>14}{'atelier':>12}{'ratio':>8}")
    for name, (p, o) in results.items():
        print(f"{name:<20}{p:>14,.0f}{o:>12,.0f}{o / p:>7.1f}x")


if __name__ == "__main__":
    main()
