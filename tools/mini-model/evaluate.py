"""Measures pictures of the mini model: clean ground, right colour, no two the same.

`evaluate.py generate --out DIR`   makes 11 colours x 20 seeds with atelier's default preset (build it first:
                                   tools/run-cmd doctor), as DIR/00001.png ... with DIR/prompts.jsonl, then judges them.
`evaluate.py judge DIR`            judges the PNGs of a folder; prompts come from prompts.jsonl (lines with "file" and
                                   "prompt") or from a sidecar JSON beside each picture (a "prompt" anywhere in it).
`evaluate.py prompts --out FILE`   writes the 220 prompts and seeds as JSONL, for another program to generate.

Definitions. Ground: mean of the pixels of the frame (1/32 of the side wide), all channels, in 0..1, above 0.9.
Colour: the rule of colours.py gives the picture the name that stands in its prompt. The same: two pictures whose
mean absolute difference is below 1/255.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np
from PIL import Image

from captions import structured
from colours import TEST, Judge
from common import REPO

SEEDS = range(1, 21)
PRESET = "txt2img/basic"
VARIANTS = [("summer", "men"), ("fall", "men"), ("winter", "women"), ("summer", "women"), ("spring", "unisex")]


def prompts(seeds=SEEDS):
    """(colour, prompt, seed) of every test picture: each colour with each seed."""
    return [(c, structured(c, *VARIANTS[s % len(VARIANTS)]), s) for c in TEST for s in seeds]


def generate(program, jobs, out, settings):
    """Draws each job with atelier's default preset; yields (job, uint8 picture). Runs stay below `out`."""
    for job in jobs:
        _, text, seed = job
        command = [program, "generate", "--preset", PRESET, "--json", "--out", out / "runs"]
        for setting in (f"prompt={text}", f"seed={seed}", *settings):
            command += ["--set", setting]
        made = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        yield job, np.asarray(Image.open(made["images"][0]).convert("RGB"))


def find_prompt(value):
    """The first string under the key "prompt" in a JSON value."""
    if isinstance(value, dict):
        if isinstance(value.get("prompt"), str):
            return value["prompt"]
        value = list(value.values())
    if isinstance(value, list):
        return next((p for p in map(find_prompt, value) if p is not None), None)
    return None


def read_folder(folder):
    """[(name, prompt or None, picture)] of the folder's PNGs."""
    known = {}
    if (folder / "prompts.jsonl").exists():
        known = {r["file"]: r["prompt"] for r in map(json.loads, (folder / "prompts.jsonl").open())}
    out = []
    for path in sorted(folder.glob("*.png")):
        prompt = known.get(path.name)
        for side in (path.with_suffix(".json"), Path(f"{path}.json")):
            if prompt is None and side.exists():
                prompt = find_prompt(json.loads(side.read_text()))
        if prompt is not None:
            out.append((path.name, prompt, np.asarray(Image.open(path).convert("RGB"))))
    return out


def colour_of(prompt):
    """The longest palette name in a prompt (the ground's own "white background" aside)."""
    text = prompt.lower().replace("white background", "").replace("gray", "grey")
    found = [c for c in TEST if c.lower() in text]
    return max(found, key=len) if found else None


def judge(pictures):
    """Counts over [(name, prompt, uint8 picture)]; the numbers and a line for each failure."""
    rule = Judge()
    clean, right, asked, failures, per = 0, 0, 0, [], {}
    for name, prompt, img in pictures:
        edge = max(1, img.shape[0] // 32)
        inner = np.ones(img.shape[:2], bool)
        inner[edge:-edge, edge:-edge] = False
        ground = img[inner].mean() / 255
        clean += ground > 0.9
        if ground <= 0.9:
            failures.append(f"{name}: ground {ground:.3f}")
        wanted = colour_of(prompt)
        if wanted:
            seen = rule(img)
            asked, right = asked + 1, right + (seen == wanted)
            per.setdefault(wanted, []).append(seen == wanted)
            if seen != wanted:
                failures.append(f"{name}: asked {wanted.lower()}, is {seen.lower()}")
    small = np.stack([np.asarray(Image.fromarray(i).resize((48, 48), Image.BOX), np.float32) for _, _, i in pictures])
    flat = small.reshape(len(small), -1)
    distance = np.stack([np.abs(flat - one).mean(1) for one in flat])
    np.fill_diagonal(distance, np.inf)
    full = {img.tobytes() for _, _, img in pictures}
    return {
        "pictures": len(pictures),
        "ground_clean": round(clean / len(pictures), 4),
        "colour_right": round(right / max(asked, 1), 4),
        "colour_right_by_name": {k.lower(): round(float(np.mean(v)), 2) for k, v in per.items()},
        "identical_files": len(pictures) - len(full),
        "pairs_the_same": int((distance < 1).sum()) // 2,
        "smallest_difference": round(float(distance.min()), 2),
        "median_nearest_difference": round(float(np.median(distance.min(1))), 2),
    }, failures


def grid(pictures, path, seeds, size=96):
    """One row per colour, the first `seeds` seeds."""
    rows = {}
    for (colour, _, _), img in pictures:
        rows.setdefault(colour, []).append(np.asarray(Image.fromarray(img).resize((size, size), Image.LANCZOS)))
    sheet = np.concatenate([np.concatenate(r[:seeds], 1) for r in rows.values()], 0)
    Image.fromarray(sheet).save(path, optimize=True)


def report(result, failures, verbose):
    print(json.dumps(result, indent=1))
    if verbose:
        print("\n".join(failures))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="what", required=True)
    g = sub.add_parser("generate")
    g.add_argument("--out", type=Path, required=True)
    g.add_argument("--program", type=Path, default=REPO / "target/release/atelier")
    g.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change the preset: cfg_scale=6")
    g.add_argument("--seeds", type=int, default=len(SEEDS))
    g.add_argument("--grid", type=Path, help="also write a sheet of the first --columns seeds of every colour")
    g.add_argument("--columns", type=int, default=10)
    j = sub.add_parser("judge")
    j.add_argument("folder", type=Path)
    p = sub.add_parser("prompts")
    p.add_argument("--out", type=Path, required=True)
    for s in (g, j):
        s.add_argument("-v", "--verbose", action="store_true", help="name each failure")
    args = ap.parse_args()
    if args.what == "prompts":
        lines = [json.dumps({"prompt": t, "seed": s, "colour": c}) for c, t, s in prompts()]
        args.out.write_text("\n".join(lines) + "\n")
        return
    if args.what == "judge":
        report(*judge(read_folder(args.folder)), args.verbose)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    begin, jobs = time.time(), prompts(range(1, args.seeds + 1))
    pictures = list(generate(args.program, jobs, args.out, args.set))
    with open(args.out / "prompts.jsonl", "w") as f:
        for n, ((_, text, seed), img) in enumerate(pictures, 1):
            Image.fromarray(img).save(args.out / f"{n:05}.png")
            f.write(json.dumps({"file": f"{n:05}.png", "prompt": text, "seed": seed}) + "\n")
    print(f"{len(pictures)} pictures in {time.time() - begin:.0f} s")
    if args.grid:
        grid(pictures, args.grid, args.columns)
    report(*judge([(f"{n:05}.png", t, img) for n, ((_, t, _), img) in enumerate(pictures, 1)]), args.verbose)


if __name__ == "__main__":
    main()
