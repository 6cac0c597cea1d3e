"""Trains the UNet and the text encoder together, from scratch, on the cached latents.

State: `--work`/unet.pt (master weights, EMA, optimiser, step); start it again to go on where it stopped.
"""

import argparse
import random
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import fast
import tokenizer
from captions import caption
from common import WORK, Trainer, load_photos, rank, run_workers, say

SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
UNET = dict(
    sample_size=24,
    block_out_channels=(64, 128, 192),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    cross_attention_dim=128,
    attention_head_dim=(1, 2, 3),  # the number of heads, whatever it is called, as in Stable Diffusion 1.5
    norm_num_groups=32,
)
MIN_SNR = 5.0


def text_config(vocab):
    return CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=128,
        bos_token_id=vocab[tokenizer.START], eos_token_id=vocab[tokenizer.END], pad_token_id=vocab[tokenizer.END],
    )  # fmt: skip


def build(work, records):
    """(both networks in one module, tokenizer)."""
    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").exists() and rank() == 0:
        tokenizer.write(folder, sorted({r["brandName"] or "" for r in records}))
    vocab = tokenizer.build(sorted({r["brandName"] or "" for r in records}))[0]
    nets = torch.nn.ModuleDict({"unet": UNet2DConditionModel(**UNET), "text_encoder": CLIPTextModel(text_config(vocab))})
    nets["unet"].to(memory_format=torch.channels_last)
    return nets, folder


def load(work, records):
    """The averaged networks in f32, and the tokenizer."""
    nets, folder = build(work, records)
    nets.load_state_dict(torch.load(work / "unet.pt", weights_only=False)["ema_state"])
    return nets.float().eval().requires_grad_(False), CLIPTokenizer.from_pretrained(folder)


def train(args):
    fast.install()
    _, records = load_photos(args.work, pixels=False)
    cache = np.load(args.work / "latents.npz")
    used = [i for i, r in enumerate(records) if not r["held_out"]]
    mean, std = torch.from_numpy(cache["mean"][used]), torch.from_numpy(cache["std"][used])
    centre, spread = (torch.from_numpy(cache[k]).view(1, -1, 1, 1) for k in ("centre", "spread"))
    records = [records[i] for i in used]
    counts = Counter(r["colour"] for r in records)
    weights = np.array([counts[r["colour"]] ** -args.balance * (0.25 + r["clear"]) for r in records])
    weights /= weights.sum()

    torch.manual_seed(1)
    nets, folder = build(args.work, load_photos(args.work, pixels=False)[1])
    tok = CLIPTokenizer.from_pretrained(folder)
    say({k: f"{sum(p.numel() for p in n.parameters()) / 1e6:.2f} M parameters" for k, n in nets.items()})
    t = Trainer(nets, args.work / "unet.pt", args.steps, args.minutes, args.lr, args.lr / 50, warmup=100, ema=0.997)
    t.resume()
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod
    snr = alphas / (1 - alphas)
    min_snr = (snr.clamp(max=MIN_SNR) / snr).float()
    total, norms, since = 0.0, 0.0, t.seconds()
    while t.progress() < 1:
        index = np.random.choice(len(records), args.batch, p=weights)
        words = [caption(records[i], random) for i in index]
        ids = tok(words, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        x = (mean[index] + std[index] * torch.randn(len(index), *mean.shape[1:]) - centre) / spread
        # one timestep from each slice of 0..1000: less noise in the loss than independent draws
        times = ((torch.arange(args.batch) + torch.rand(args.batch)) * (1000 / args.batch)).long().clamp_(max=999)
        noise = torch.randn_like(x)
        a = alphas[times].view(-1, 1, 1, 1)
        noisy = (a.sqrt() * x + (1 - a).sqrt() * noise).bfloat16().contiguous(memory_format=torch.channels_last)
        context = nets["text_encoder"](ids).last_hidden_state
        guess = nets["unet"](noisy, times, context).sample.float()
        loss = ((guess - noise) ** 2).mean((1, 2, 3))
        (loss * min_snr[times]).mean().backward()
        norms += t.update()
        total += loss.mean().item()
        if t.step % 25 == 0:
            now = t.seconds()
            epochs = t.step * args.batch * args.workers / len(records)
            say(f"step {t.step} epoch {epochs:.1f} {now / 60:.1f} min {(now - since) / 25:.2f} s/step "
                f"loss {total / 25:.4f} grad {norms / 25:.3f}")  # fmt: skip
            total, norms, since = 0.0, 0.0, now
        t.save(every=120)
    t.save()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", type=Path, default=WORK)
    ap.add_argument("--steps", type=int, default=8000)
    ap.add_argument("--minutes", type=float, default=1e9, help="ends earlier, with its learning rate run down")
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--batch", type=int, default=24, help="per worker")
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--balance", type=float, default=0.5, help="0: as the catalogue has them; 1: all colours equally often")
    args = ap.parse_args()
    run_workers(train, args, args.workers)


if __name__ == "__main__":
    main()
