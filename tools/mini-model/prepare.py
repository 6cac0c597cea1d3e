"""Catalogue photos -> one array of square, centred, white-ground shoes.

Reads the photo folder (`--data`: images.csv, casual_shoes.jsonl, images_*), writes `--work`/photos.npz
(`images` uint8 N x S x S x 3, `ids`) and `--work`/records.jsonl (one metadata record per kept photo).
Per photo: take the largest copy; enlarge a 60x80 one by 4 with Real-ESRGAN; divide a grey ground away;
cut a square around the shoe with a margin; drop what is not a single object on a plain ground.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import DATA, WORK, foreground, write_atomic
from upscaler import load_upscaler

MARGIN = 0.09  # of the square's side, on each side of the shoe
KEEP = ("id", "brandName", "gender", "baseColour", "colour1", "season", "articleAttributes", "productDisplayName")


def largest_copies(data):
    """id -> path of the widest copy of that photo."""
    best = {}
    with open(data / "images.csv") as f:
        for row in csv.DictReader(f):
            width = int(row["width"])
            if width > best.get(int(row["id"]), (0, ""))[0]:
                best[int(row["id"])] = (width, row["path"])
    return {i: data / p for i, (_, p) in best.items()}


def read(path):
    return np.asarray(Image.open(path).convert("RGB"), np.float32) / 255


def enlarge(net, images, batch=16):
    """Upscales same-sized images (H x W x 3 in 0..1) by 4."""
    out = []
    for i in range(0, len(images), batch):
        x = torch.from_numpy(np.stack(images[i : i + batch])).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            out += list(net(x).permute(0, 2, 3, 1).contiguous().numpy())
    return out


def whiten(img):
    """Divides by a quadratic surface fitted to the ground along the frame; a white ground is left as it is."""
    h, w, _ = img.shape
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j].astype(np.float32)
    frame = (abs(y) > 0.86) | (abs(x) > 0.95)
    if img[frame].mean() > 0.985:
        return img
    basis = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)
    ground = np.empty_like(img)
    usable = frame & (abs(img - np.median(img[frame], 0)).max(-1) < 0.2)
    for _ in range(2):  # the second fit leaves out what the first one shows to be no ground
        for c in range(3):
            k, *_ = np.linalg.lstsq(basis[usable], img[..., c][usable], rcond=None)
            ground[..., c] = basis @ k
        usable = frame & (abs(img - ground).max(-1) < 0.05)
        if usable.sum() < 50:
            break
    out = (img / ground.clip(0.3, 1)).clip(0, 1)
    return np.where(out > 0.96, np.minimum(1, 0.96 + (out - 0.96) * 2.5), out)  # the rest of the gradient


def square(img, size):
    """Cuts a square around the shoe, on white; None when there is no single object on a plain ground."""
    mask = foreground(img)
    h, w = mask.shape
    rows, cols = np.flatnonzero(mask.mean(1) > 0.012), np.flatnonzero(mask.mean(0) > 0.012)
    if len(rows) < h * 0.1 or len(cols) < w * 0.35:
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
    if bottom - top > h * 0.94 or (img[:3].mean() + img[-3:].mean()) / 2 < 0.95:
        return None
    side = round(max(bottom - top, right - left) / (1 - 2 * MARGIN))
    canvas = np.ones((side, side, 3), np.float32)
    oy, ox = (side - (top + bottom)) // 2, (side - (left + right)) // 2
    y0, y1, x0, x1 = max(0, -oy), min(h, side - oy), max(0, -ox), min(w, side - ox)
    canvas[y0 + oy : y1 + oy, x0 + ox : x1 + ox] = img[y0:y1, x0:x1]
    small = Image.fromarray((canvas * 255 + 0.5).astype(np.uint8)).resize((size, size), Image.LANCZOS)
    return np.asarray(small)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, default=DATA)
    ap.add_argument("--upscaler", type=Path, help="default: realesrgan/ beside the photo folder")
    ap.add_argument("--work", type=Path, default=WORK)
    ap.add_argument("--size", type=int, default=192)
    args = ap.parse_args()
    torch.set_num_threads(2)
    net = load_upscaler(args.upscaler or args.data.parent / "realesrgan/realesr-general-x4v3.fp16.safetensors")
    args.work.mkdir(parents=True, exist_ok=True)

    paths = largest_copies(args.data)
    with open(args.data / "casual_shoes.jsonl") as f:
        records = [r for r in map(json.loads, f) if r["id"] in paths]
    images, kept, dropped = [], [], []
    for start in range(0, len(records), 128):
        part = records[start : start + 128]
        photos = [read(paths[r["id"]]) for r in part]
        for width in (60, 150):
            chosen = [i for i, p in enumerate(photos) if p.shape[1] == width]
            for i, big in zip(chosen, enlarge(net, [photos[i] for i in chosen], 16 if width == 60 else 2)):
                photos[i] = big
        for r, photo in zip(part, photos):
            cut = square(whiten(photo), args.size)
            if cut is None:
                dropped.append(r["id"])
                continue
            images.append(cut)
            kept.append({k: r[k] for k in KEEP})
        print(f"{start + len(part)} read, {len(kept)} kept, {len(dropped)} dropped", flush=True)

    def save(path):
        with open(path, "wb") as f:
            np.savez(f, images=np.stack(images), ids=np.array([r["id"] for r in kept]))

    write_atomic(args.work / "photos.npz", save)
    write_atomic(args.work / "records.jsonl", lambda p: p.write_text("".join(json.dumps(r) + "\n" for r in kept)))
    print("dropped ids:", dropped)


if __name__ == "__main__":
    main()
