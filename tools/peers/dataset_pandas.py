#!/usr/bin/env python3
"""The same work as `atelier dataset analyze` and `prepare`, as one would write it with pandas and Pillow.

    python tools/peers/dataset_pandas.py --atelier target/release/atelier --csv styles.csv --images DIR

Runs both on the same files, one after the other, and prints rows/s and images/s of each with the ratio.
The rows: read the table, count the values of every column, three cross tables, missing values, one pass of the filter.
The images (measure): decode, border colour, sharpness, difference hash. The images (prepare): decode, Lanczos to a
square on the photo's background, PNG.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

ATTRIBUTES = ["baseColour", "gender", "brandName", "season", "year", "usage"]
CROSS = [("baseColour", "gender"), ("baseColour", "season"), ("gender", "season")]


def rows(path: Path) -> int:
    table = pd.read_csv(path, dtype=str, keep_default_na=True, na_values=["NA"])
    chosen = table[table["articleType"].notna()]
    for name in ATTRIBUTES:
        chosen[name].value_counts(dropna=False)
    for a, b in CROSS:
        pd.crosstab(chosen[a], chosen[b])
    chosen.isna().sum()
    return len(table)


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
layout: {{kind: myntra-csv, records: "{csv}", images: ["{images}"]}}
filter: articleType is present
attributes: [{attributes}]
cross: [{cross}]
split: {{stratify: [baseColour, gender, season]}}
images: {{size: {size}}}
captions: {{templates: {{en: [{{text: "A photo of {{baseColour|lower}} {{articleType|lower}}"}}]}}}}
"""


def atelier(exe: str, work: Path, definition: Path, *args: str) -> float:
    began = time.perf_counter()
    out = subprocess.run([exe, "dataset", *args, "--json"], cwd=work, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if out.returncode:
        sys.exit(out.stdout + out.stderr)
    return seconds


def timed(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--atelier", required=True, help="the executable, built with --release")
    args.add_argument("--csv", required=True, type=Path)
    args.add_argument("--images", required=True, type=Path, help="folder of <id>.jpg that the table names")
    args.add_argument("--size", type=int, default=512)
    args.add_argument("--json", action="store_true")
    a = args.parse_args()
    exe = str(Path(a.atelier).resolve())
    table, folder = a.csv.resolve(), a.images.resolve()
    known = set(pd.read_csv(table, dtype=str)["id"])
    images = sorted(p for p in folder.iterdir() if p.stem in known)
    results = {}
    with tempfile.TemporaryDirectory() as t:
        work = Path(t)
        (work / "empty").mkdir()
        text = DEFINITION.format(csv=table, images=folder, size=a.size, attributes=", ".join(ATTRIBUTES),
                                 cross=", ".join(f"[{x}, {y}]" for x, y in CROSS))
        (work / "d.yaml").write_text(text)
        (work / "rows.yaml").write_text(text.replace(str(folder), "none"))
        # The table. The facts hold the engine's own time, without figures; both have the files in the page cache.
        count = rows(table)
        theirs = min(timed(lambda: rows(table)) for _ in range(3))
        out = subprocess.run([exe, "dataset", "analyze", "rows.yaml", "--in", ".", "--out", "r", "--json"], cwd=work,
                             capture_output=True, text=True, check=False)
        if out.returncode:
            sys.exit(out.stdout + out.stderr)
        ours = json.loads(out.stdout)["timings"]["records"]
        results["rows/s"] = (count / theirs, count / ours)
        # The photos, measured.
        def all_measures():
            pairs([measure(p) for p in images])
        theirs = timed(all_measures)
        out = subprocess.run([exe, "dataset", "analyze", "d.yaml", "--in", ".", "--out", "m", "--json"], cwd=work,
                             capture_output=True, text=True, check=False)
        if out.returncode:
            sys.exit(out.stdout + out.stderr)
        ours = json.loads(out.stdout)["timings"]["photos"]
        results["images/s measured"] = (len(images) / theirs, len(images) / ours)
        # The photos, prepared: the whole command, with splits, captions, digests and fsync.
        target = work / "theirs"
        target.mkdir()
        theirs = timed(lambda: [prepare(p, target, a.size) for p in images])
        ours = atelier(exe, work, work / "d.yaml", "prepare", "d.yaml", "--in", ".", "--out", "p")
        results["images/s prepared"] = (len(images) / theirs, len(images) / ours)
    if a.json:
        print(json.dumps({k: {"pandas_pillow": p, "atelier": o, "ratio": o / p} for k, (p, o) in results.items()}, indent=2))
        return
    print(f"{count} rows, {len(images)} images\n{'':<20}{'pandas+Pillow':>14}{'atelier':>12}{'ratio':>8}")
    for name, (p, o) in results.items():
        print(f"{name:<20}{p:>14,.0f}{o:>12,.0f}{o / p:>7.1f}x")


if __name__ == "__main__":
    main()
