"""The colour of a shoe picture: a rule fitted to the catalogue's own colour names.

Feature: the foreground pixels (common.foreground) of the picture, in CIELAB (D65), are sorted into 64 cells
(k-means centres over the photos, chroma counting twice lightness); the square roots of the cells' shares are
the only thing the rule sees - it knows no shape and no place. Rule: multinomial logistic regression from
them to a colour name. `python colours.py` fits it without the held-out photos, prints its accuracy on them
and in five-fold cross-validation, writes palette.json, and writes `--work`/colours.json, the colour each
caption uses: the catalogue's, unless the rule (fitted without that photo) gives the catalogue's name less
than 6 % and its own more than 70 %. The probability of the used name goes with it: training looks more often at
photos that show their colour clearly.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import WORK, foreground, load_photos, write_atomic

PALETTE = Path(__file__).with_name("palette.json")
TEST = ["Black", "Brown", "White", "Grey", "Blue", "Navy Blue", "Red", "Green", "Olive", "Beige", "Purple"]
ALL = TEST + ["Khaki", "Tan", "Maroon", "Yellow", "Pink", "Orange"]
JOIN = {"Off White": "White", "Silver": "Grey", "Charcoal": "Grey", "Mushroom Brown": "Brown", "Coffee Brown": "Brown",
        "Cream": "Beige", "Burgundy": "Maroon", "Mustard": "Yellow", "Magenta": "Pink", "Peach": "Pink", "Rust": "Orange"}  # fmt: skip
CELLS, SCALE = 64, np.array([0.6, 1.3, 1.3], np.float32)
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


def lab(rgb):
    """sRGB in 0..1 (... x 3) -> CIELAB, D65."""
    rgb = np.asarray(rgb, np.float32)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ (TO_XYZ / np.array([[0.95047], [1.0], [1.08883]])).T.astype(np.float32)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def pixels(image):
    """Scaled CIELAB of the foreground of a uint8 picture, looked at in 64 x 64."""
    small = np.asarray(Image.fromarray(image).resize((64, 64), Image.BOX), np.float32) / 255
    mask = foreground(small)
    return torch.from_numpy(lab(small[mask]) * SCALE).float()


def feature(points, centres):
    if not len(points):
        return torch.zeros(len(centres))
    cells = torch.bincount(torch.cdist(points, centres).argmin(1), minlength=len(centres))
    return (cells / len(points)).sqrt()


def k_means(points, count, rounds=25):
    centres = points[torch.randperm(len(points))[:count]]
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        means = [points[nearest == k].mean(0) if (nearest == k).any() else points[torch.randint(len(points), ())] for k in range(count)]
        centres = torch.stack(means)
    return centres


def fit(x, y, classes):
    """Logistic regression; rare classes count by the square root of their frequency."""
    w = torch.zeros(x.shape[1] + 1, classes, requires_grad=True)
    importance = torch.bincount(y, minlength=classes).clamp_min(1).float() ** -0.5
    optim = torch.optim.LBFGS([w], max_iter=80)

    def closure():
        optim.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ w[1:] + w[0], y, weight=importance) + 2e-4 * (w[1:] ** 2).sum()
        loss.backward()
        return loss

    optim.step(closure)
    return w.detach()


def out_of_fold(x, y, classes, folds=5):
    """Each photo's probabilities by a rule fitted without it."""
    fold = torch.randint(folds, (len(y),))
    out = torch.zeros(len(y), classes)
    for f in range(folds):
        w = fit(x[fold != f], y[fold != f], classes)
        out[fold == f] = (x[fold == f] @ w[1:] + w[0]).softmax(1)
    return out


def accuracy(name, guess, y, names):
    share = [float((guess[y == k] == k).float().mean()) if (y == k).any() else float("nan") for k in range(len(names))]
    each = ", ".join(f"{n.lower()} {s:.2f}" for n, s in zip(names, share))
    print(f"{name}: {float((guess == y).float().mean()):.3f} of {len(y)} photos, mean over colours {np.nanmean(share):.3f} ({each})")


class Judge:
    """The fitted rule of palette.json."""

    def __init__(self, path=PALETTE):
        p = json.loads(path.read_text())
        self.names, self.centres, self.w = p["names"], torch.tensor(p["centres"]), torch.tensor(p["weights"])

    def scores(self, image):
        """Probability of each name of a uint8 H x W x 3 picture."""
        return (feature(pixels(image), self.centres) @ self.w[1:] + self.w[0]).softmax(0)

    def __call__(self, image):
        return self.names[int(self.scores(image).argmax())]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", type=Path, default=WORK)
    args = ap.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    images, records = load_photos(args.work)
    labels = [JOIN.get(r["baseColour"], r["baseColour"]) for r in records]
    held = torch.tensor([r["held_out"] for r in records])
    points = [pixels(i) for i in images]
    centres = k_means(torch.cat([p[torch.randint(len(p), (12,))] for p, h in zip(points, held) if not h and len(p)]), CELLS)
    x = torch.stack([feature(p, centres) for p in points])

    def task(names):
        keep = torch.tensor([l in names for l in labels])
        y = torch.tensor([names.index(l) if l in names else 0 for l in labels])
        return keep, y

    keep, y = task(TEST)
    accuracy("five-fold", out_of_fold(x[keep], y[keep], len(TEST)).argmax(1), y[keep], TEST)
    w = fit(x[keep & ~held], y[keep & ~held], len(TEST))
    accuracy("held out", (x[keep & held] @ w[1:] + w[0]).argmax(1), y[keep & held], TEST)
    rule = {"names": TEST, "centres": centres.round(decimals=3).tolist(), "weights": w.round(decimals=4).tolist()}
    write_atomic(PALETTE, lambda p: p.write_text(json.dumps(rule) + "\n"))

    keep, y = task(ALL)
    chance = torch.zeros(len(labels), len(ALL))
    chance[keep] = out_of_fold(x[keep], y[keep], len(ALL))
    chosen, changes = {}, Counter()
    for r, l, k, c in zip(records, labels, keep, chance):
        chosen[r["id"]] = [r["baseColour"], round(float(c[ALL.index(l)]), 3) if k else 0.5]
        guess = ALL[int(c.argmax())]
        if k and c.max() > 0.7 and c[ALL.index(l)] < 0.06:
            chosen[r["id"]] = [guess, round(float(c.max()), 3)]
            changes[f"{l} -> {guess}"] += 1
    write_atomic(args.work / "colours.json", lambda p: p.write_text(json.dumps(chosen)))
    print(f"{sum(changes.values())} labels changed:", dict(changes.most_common(12)))


if __name__ == "__main__":
    main()
