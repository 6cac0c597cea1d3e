"""Trains the small KL autoencoder (factor 8) on the prepared photos, then writes the cached latents.

Stage `train` fits encoder and decoder; `latents` encodes every photo; `decoder` goes on with the decoder alone
(latents stay valid); `measure` reconstructs the held-out photos.
State: `--work`/vae.pt; latents: `--work`/latents.npz (each photo's posterior; each channel's centre and spread).
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

import fast
from common import DATA, WORK, Trainer, load_photos, run_workers, say, write_atomic
from perceptual import Perceptual

CONFIG = dict(
    sample_size=192,
    block_out_channels=(32, 64, 128, 128),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=1,
    latent_channels=4,
    norm_num_groups=16,
    scaling_factor=0.18215,
)
KL_WEIGHT, PLAIN_WEIGHT, COLOUR_WEIGHT, EDGE_WEIGHT, PERCEPTUAL_WEIGHT = 1e-4, 0.5, 2.0, 0.3, 0.05


def edges(x, y):
    """Absolute difference of the gradients at three scales."""
    total = 0
    for scale in range(3):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        d = x - y
        total = total + (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    return total


def colour(x, y):
    """Absolute difference of two opponent colours, and of everything at an eighth of the size."""
    d = x - y
    opponents = (d[:, 0] - d[:, 1]).abs().mean() + (d[:, 2] - (d[:, 0] + d[:, 1]) / 2).abs().mean()
    return opponents + F.avg_pool2d(d, 8).abs().mean()


def plain_latents(mean, y):
    """Distance of the first three latents from the block's lightness and opponent colours.

    It teaches the encoder at once what a block's latent should say first, and makes latents that look like
    a small picture, which a diffusion model learns sooner.
    """
    y = F.avg_pool2d(y, 8)
    r, g, b = y[:, 0], y[:, 1], y[:, 2]
    target = torch.stack([(r + g + b) / 3, 4 * (r - g), 4 * (b - (r + g) / 2)], 1)
    return ((mean[:, :3] - target) ** 2).mean()


def batch(images, weights, size, crop):
    """Random crops, mostly of the middle where the shoe is; -1..1, channels last."""
    out = np.empty((size, crop, crop, 3), np.float32)
    room = images.shape[1] - crop
    for i, k in enumerate(np.random.choice(len(images), size, p=weights)):
        y, x = np.random.randint(room // 6, room - room // 6 + 1), np.random.randint(room + 1)
        out[i] = images[k, y : y + crop, x : x + crop]
    return torch.from_numpy(out / 127.5 - 1).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def train(args):
    fast.install()
    images, records = load_photos(args.work)
    images = images[[not r["held_out"] for r in records]]
    counts = Counter(r["colour"] for r in records)
    weights = np.array([counts[r["colour"]] ** -0.6 for r in records if not r["held_out"]])
    weights /= weights.sum()
    torch.manual_seed(1)
    net = AutoencoderKL(**CONFIG).to(memory_format=torch.channels_last)
    decoder_only = args.stage == "decoder"
    path = args.work / ("vae_decoder.pt" if decoder_only else "vae.pt")
    if decoder_only:
        net.load_state_dict(torch.load(args.work / "vae.pt", weights_only=False)["ema_state"])
        net.encoder.requires_grad_(False)
        net.quant_conv.requires_grad_(False)
    say(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters")
    t = Trainer(net, path, args.steps, args.minutes, args.lr, args.lr / 20, ema=0.995, decay=1e-4)
    t.resume()
    look = Perceptual(args.perceptual or args.data.parent / "efficientnet_lite0/efficientnet_lite0.fp16.safetensors")
    sums, since = np.zeros(5), t.seconds()
    while t.progress() < 1:
        # small crops first, for many steps; then larger ones; whole photos in the end
        size, crop = (args.batch, 64) if t.progress() < 0.85 else (args.batch // 2, 128)
        if t.progress() > 0.92:
            size, crop = args.batch // 4, images.shape[1]
        real = batch(images, weights, size, crop)
        x = real.bfloat16()
        with torch.set_grad_enabled(not decoder_only):
            post = net.encode(x).latent_dist
            mean, logvar = post.mean.float(), post.logvar.float()
            z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        fake = net.decode(z.bfloat16()).sample
        rec, hue = (fake.float() - real).abs().mean(), colour(fake.float(), real)
        edge = edges(fake.float(), real)
        seen = look(fake, x).float()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        loss = rec + COLOUR_WEIGHT * hue + EDGE_WEIGHT * edge + PERCEPTUAL_WEIGHT * seen + (
            0 if decoder_only else KL_WEIGHT * kl + PLAIN_WEIGHT * plain_latents(mean, real)
        )
        loss.backward()
        t.update()
        sums += [rec.item(), edge.item(), seen.item(), kl.item(), hue.item()]
        if t.step % 25 == 0:
            now = t.seconds()
            say(f"step {t.step} {now / 60:.1f} min {(now - since) / 25:.2f} s/step "
                f"l1 {sums[0] / 25:.4f} edge {sums[1] / 25:.4f} look {sums[2] / 25:.3f} kl {sums[3] / 25:.2f} "
                f"colour {sums[4] / 25:.3f}")  # fmt: skip
            sums, since = np.zeros(5), now
        t.save(every=120)
    t.save()


def load(work, standard=False):
    """The averaged autoencoder; its decoder is the refined one where that stage was run.

    `standard`: with the latents' centre and scale (latents.npz) moved into the two 1x1 convolutions.
    """
    net = AutoencoderKL(**CONFIG)
    net.load_state_dict(torch.load(work / "vae.pt", weights_only=False)["ema_state"])
    if (work / "vae_decoder.pt").exists():
        net.load_state_dict(torch.load(work / "vae_decoder.pt", weights_only=False)["ema_state"])
    if standard:
        cache = np.load(work / "latents.npz")
        centre = torch.from_numpy(cache["centre"])
        gain = 1 / (CONFIG["scaling_factor"] * torch.from_numpy(cache["spread"]))  # new = (old - centre) * gain
        before, after = net.quant_conv, net.post_quant_conv
        with torch.no_grad():
            before.weight[:4] *= gain.view(4, 1, 1, 1)
            before.bias[:4] = (before.bias[:4] - centre) * gain
            before.bias[4:] += 2 * gain.log()  # the logarithm of the variance
            after.bias += after.weight[:, :, 0, 0] @ centre
            after.weight /= gain.view(1, 4, 1, 1)
    return net.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def latents(args, images, records):
    net = load(args.work)
    means, stds = [], []
    with torch.no_grad():
        for i in range(0, len(images), 16):
            x = torch.from_numpy(images[i : i + 16].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
            with torch.autocast("cpu", torch.bfloat16, enabled=not args.exact):
                post = net.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist
            means.append(post.mean.float().numpy())
            stds.append(post.std.float().numpy())
    means, stds = np.concatenate(means), np.concatenate(stds)
    centre, spread = means.mean((0, 2, 3)), np.sqrt(means.var((0, 2, 3)) + (stds**2).mean((0, 2, 3)))
    print(f"latent centre {centre} spread {spread} posterior std {stds.mean((0, 2, 3))}")

    def save(path):
        with open(path, "wb") as f:
            np.savez(f, mean=means, std=stds, centre=centre, spread=spread)

    write_atomic(args.work / "latents.npz", save)


def measure(args, images, records):
    net = load(args.work)
    held = images[[r["held_out"] for r in records]]
    fake = []
    with torch.no_grad():
        for img in held:
            x = torch.from_numpy(img.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
            y = net.decode(net.encode(x).latent_dist.mean).sample[0].permute(1, 2, 0)
            fake.append(((y.numpy().clip(-1, 1) + 1) * 127.5 + 0.5).astype(np.uint8))
    mse = ((np.stack(fake).astype(np.float32) - held) ** 2).mean((1, 2, 3))
    print(f"held-out reconstruction: {(10 * np.log10(255**2 / mse)).mean():.2f} dB PSNR over {len(held)} photos")
    pairs = [np.concatenate(p, 0) for p in zip(held[:12], fake)]
    Image.fromarray(np.concatenate(pairs, 1)).save(args.work / "reconstructions.png")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("stage", choices=("train", "latents", "decoder", "measure"))
    ap.add_argument("--data", type=Path, default=DATA)
    ap.add_argument("--work", type=Path, default=WORK)
    ap.add_argument("--perceptual", type=Path, help="default: efficientnet_lite0/ beside the photo folder")
    ap.add_argument("--steps", type=int, default=4000)
    ap.add_argument("--minutes", type=float, default=1e9, help="ends earlier, with its learning rate run down")
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--batch", type=int, default=8, help="small crops per worker")
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--exact", action="store_true", help="encode in f32")
    args = ap.parse_args()
    if args.stage in ("latents", "measure"):
        {"latents": latents, "measure": measure}[args.stage](args, *load_photos(args.work))
    else:
        run_workers(train, args, args.workers)


if __name__ == "__main__":
    main()
