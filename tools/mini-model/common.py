"""What the scripts share: default folders, the foreground rule, atomic writes, the training loop's state, workers."""

import json
import math
import os
import random
import socket
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from muon import Muon

REPO = Path(__file__).resolve().parents[2]
DATA = REPO / "data/fashion_myntra"
WORK = REPO / "target/mini-model"
MODEL = REPO / "configs/models/mini"


def foreground(img):
    """Pixels (H x W x 3 in 0..1) that are not white ground: dark enough, or coloured enough."""
    return (img.min(-1) < 0.90) | (img.max(-1) - img.min(-1) > 0.06)


def write_atomic(path, write):
    """Calls `write(temporary path)`, then moves the result over `path`."""
    tmp = Path(f"{path}.tmp")
    write(tmp)
    with open(tmp, "rb") as f:
        os.fsync(f.fileno())
    os.replace(tmp, path)


def load_photos(work, pixels=True):
    """(images uint8 N x S x S x 3, records) of prepare.py; each record gets `held_out` (every 20th), `colour`, `clear`."""
    images = np.load(work / "photos.npz")["images"] if pixels else None
    records = [json.loads(line) for line in open(work / "records.jsonl")]
    colours = json.loads((work / "colours.json").read_text()) if (work / "colours.json").exists() else {}
    for i, r in enumerate(records):
        r["held_out"] = i % 20 == 7
        r["colour"], r["clear"] = colours.get(str(r["id"]), (r["baseColour"], 0.5))  # see colours.py
    return images, records


def _worker(rank, world, port, main, args):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    main(args)
    dist.barrier()
    dist.destroy_process_group()


def run_workers(main, args, world):
    """Runs `main(args)` in `world` processes of one thread each, which average their gradients once a step.

    On a busy machine this is several times faster than one process of `world` threads, whose threads wait
    for each other in every operation.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(_worker, (world, port, main, args), nprocs=world)


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def say(*words):
    if rank() == 0:
        print(*words, flush=True)


class Trainer:
    """A bf16 network with f32 master weights, Muon and AdamW, EMA, a schedule by steps or minutes, and resumable state."""

    def __init__(self, net, path, steps, minutes, lr, final_lr, warmup=200, ema=0.999, decay=0.01, clip=1.0):
        self.net, self.path, self.clip = net, path, clip
        self.master = [p.detach().clone().float() for p in net.parameters()]
        for m in self.master:
            m.requires_grad_()
        self.ema = [m.detach().clone() for m in self.master]
        net.to(torch.bfloat16)
        inner = [p.ndim > 1 and min(p.shape[0], p[0].numel()) >= 32 and "embedding" not in name and "conv_in" not in name
                 for name, p in net.named_parameters()]  # fmt: skip
        self.optims = [
            Muon([m for m, i in zip(self.master, inner) if i], lr, weight_decay=decay),
            torch.optim.AdamW([m for m, i in zip(self.master, inner) if not i], lr, betas=(0.9, 0.99), weight_decay=decay, fused=True),
        ]
        self.steps, self.minutes, self.lr, self.final_lr = steps, minutes, lr, final_lr
        self.warmup, self.ema_decay = warmup, ema
        self.step, self.before, self.started, self.saved, self.shared = 0, 0.0, time.time(), time.time(), 0.0
        self.seed()

    def seed(self):
        """Random numbers that differ between workers and between resumed parts."""
        torch.manual_seed(1 + 1009 * rank() + self.step)
        np.random.seed(1 + 1009 * rank() + self.step)
        random.seed(1 + 1009 * rank() + self.step)

    def seconds(self):
        return self.before + time.time() - self.started

    def progress(self):
        """0..1: the further of steps done and minutes used, as the workers agreed on it in the last step."""
        return self.shared

    def update(self):
        """Takes the gradients of the bf16 network, steps the masters, copies them back. Returns the gradient norm."""
        rate = self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * self.progress()))
        for group in self.optims[0].param_groups + self.optims[1].param_groups:
            group["lr"] = rate * min(1, (self.step + 1) / self.warmup)
        grads = [torch.zeros_like(m) if p.grad is None else p.grad.float() for m, p in zip(self.master, self.net.parameters())]
        done = min(1.0, max((self.step + 1) / self.steps, self.seconds() / 60 / self.minutes))
        flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([done])])
        if dist.is_initialized():
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
        self.shared = float(flat[-1])
        for m, p, g in zip(self.master, self.net.parameters(), flat.split([g.numel() for g in grads] + [1])):
            m.grad = g.view_as(m) if p.requires_grad else None
            p.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.master, self.clip)
        for optim in self.optims:
            optim.step()
        self.step += 1
        with torch.no_grad():
            for m, p in zip(self.master, self.net.parameters()):
                p.copy_(m)
            torch._foreach_lerp_(self.ema, self.master, 1 - min(self.ema_decay, (1 + self.step) / (10 + self.step)))
        return float(norm)

    def ema_state(self):
        """The averaged weights in f32, by name, as the network's own state dict has them."""
        state = {k: v.float() for k, v in self.net.state_dict().items()}
        state.update({k: e for (k, _), e in zip(self.net.named_parameters(), self.ema)})
        return state

    def save(self, every=0):
        if rank() or time.time() - self.saved < every:
            return
        state = {
            "master": self.master, "ema": self.ema, "optims": [o.state_dict() for o in self.optims], "step": self.step,
            "seconds": self.seconds(), "ema_state": self.ema_state(),
        }  # fmt: skip
        write_atomic(self.path, lambda p: torch.save(state, p))
        self.saved = time.time()

    def resume(self):
        if not self.path.exists():
            return
        s = torch.load(self.path, weights_only=False)
        with torch.no_grad():
            for mine, theirs in ((self.master, s["master"]), (self.ema, s["ema"])):
                for a, b in zip(mine, theirs):
                    a.copy_(b)
            for m, p in zip(self.master, self.net.parameters()):
                p.copy_(m)
        for optim, saved in zip(self.optims, s.get("optims", [])):
            optim.load_state_dict(saved)
        self.step, self.before = s["step"], s["seconds"]
        self.shared = min(1.0, max(self.step / self.steps, self.before / 60 / self.minutes))
        self.seed()
        say(f"resumed at step {self.step}, {self.before / 60:.1f} min")
