"""Trains a small LoRA for the mini model on the shoes of one colour, and writes it in kohya's layout.

The example that the documentation shows at several strengths; `--work` is that of train.py.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from captions import caption
from common import WORK, load_photos
from train import SCHEDULE, load


class Adapted(torch.nn.Module):
    """A frozen matrix and a low-rank one beside it (Hu et al. 2021, arXiv:2106.09685)."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.down = torch.nn.Linear(base.in_features, rank, bias=False)
        self.up = torch.nn.Linear(rank, base.out_features, bias=False)
        torch.nn.init.normal_(self.down.weight, std=1 / rank)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.scale * self.up(self.down(x))


def adapt(unet, rank, alpha):
    """The adapted matrices by their names: queries, keys, values and outputs of every attention."""
    found = {}
    for name, module in list(unet.named_modules()):
        for leaf in ("to_q", "to_k", "to_v"):
            if hasattr(module, leaf):
                setattr(module, leaf, Adapted(getattr(module, leaf), rank, alpha))
                found[f"{name}.{leaf}"] = getattr(module, leaf)
        if hasattr(module, "to_out"):
            module.to_out[0] = Adapted(module.to_out[0], rank, alpha)
            found[f"{name}.to_out.0"] = module.to_out[0]
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", type=Path, default=WORK)
    ap.add_argument("--colours", nargs="+", default=["Red", "Maroon"])
    ap.add_argument("--steps", type=int, default=160)
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--rank", type=int, default=4)
    ap.add_argument("--alpha", type=float, default=4)
    ap.add_argument("--lr", type=float, default=4e-3)
    ap.add_argument("--out", type=Path, required=True)
    args = ap.parse_args()
    random.seed(1), np.random.seed(1), torch.manual_seed(1), torch.set_num_threads(1)
    _, records = load_photos(args.work, pixels=False)
    used = [i for i, r in enumerate(records) if not r["held_out"] and r["colour"] in args.colours]
    cache = np.load(args.work / "latents.npz")
    mean, std = torch.from_numpy(cache["mean"][used]), torch.from_numpy(cache["std"][used])
    centre, spread = (torch.from_numpy(cache[k]).view(1, -1, 1, 1) for k in ("centre", "spread"))
    nets, tok = load(args.work, records)
    layers = adapt(nets["unet"], args.rank, args.alpha)
    weights = [p for layer in layers.values() for p in (layer.down.weight, layer.up.weight)]
    for p in weights:
        p.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=args.lr, weight_decay=1e-2)
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod
    total = 0.0
    for step in range(1, args.steps + 1):
        index = np.random.choice(len(used), args.batch)
        # Without the colour's name: the adapter is to bring it by itself.
        words = [caption({**records[used[i]], "colour": ""}, random) for i in index]
        ids = tok(words, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        x = (mean[index] + std[index] * torch.randn(len(index), *mean.shape[1:]) - centre) / spread
        times = ((torch.arange(args.batch) + torch.rand(args.batch)) * (1000 / args.batch)).long().clamp_(max=999)
        noise, a = torch.randn_like(x), alphas[times].view(-1, 1, 1, 1)
        with torch.no_grad():
            context = nets["text_encoder"](ids).last_hidden_state
        guess = nets["unet"](a.sqrt() * x + (1 - a).sqrt() * noise, times, context).sample
        loss = ((guess - noise) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
        if step % 25 == 0:
            print(f"step {step} of {args.steps}, {len(used)} photos, loss {total / 25:.4f}", flush=True)
            total = 0.0
    tensors = {}
    for name, layer in layers.items():
        key = "lora_unet_" + name.replace(".", "_")
        tensors[f"{key}.lora_down.weight"] = layer.down.weight.detach().half().contiguous()
        tensors[f"{key}.lora_up.weight"] = layer.up.weight.detach().half().contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(args.alpha).half()
    about = {"ss_network_module": "networks.lora", "ss_network_dim": str(args.rank), "ss_network_alpha": str(args.alpha),
             "ss_base_model_version": "atelier mini", "ss_steps": str(args.steps),
             "ss_output_name": args.out.stem, "ss_dataset": json.dumps({"colours": args.colours, "photos": len(used)})}  # fmt: skip
    save_file(tensors, args.out, about)


if __name__ == "__main__":
    main()
