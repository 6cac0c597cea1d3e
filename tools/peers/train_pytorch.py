"""One micro-step of LoRA training in PyTorch, diffusers and PEFT, beside `bench_train`, on the same work.

Stable Diffusion 1.5's UNet with random weights, rank 8 on to_q, to_k, to_v and to_out.0, batch 1, two threads.

    pip install torch diffusers peft transformers
    python tools/peers/train_pytorch.py [pixels ...]       # both, one after the other, each in a process of its own
    python tools/peers/train_pytorch.py --one PIXELS MODE  # checkpointing or plain, f32; checkpointing-bf16
"""

import os
import resource
import subprocess
import sys
import time

THREADS = int(os.environ.get("THREADS", "2"))
STEPS = int(os.environ.get("STEPS", "3"))


def one(pixels, mode):
    import torch
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    dtype = torch.bfloat16 if mode.endswith("bf16") else torch.float32
    unet.requires_grad_(False).to(dtype)
    unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False))
    if mode.startswith("checkpointing"):
        unet.enable_gradient_checkpointing()
    unet.train()
    size = pixels // 8
    sample, noise = torch.randn(2, 1, 4, size, size, dtype=dtype)
    context = torch.randn(1, 77, 768, dtype=dtype)
    walls, busy = [], []
    for _ in range(STEPS):
        start, cpu = time.perf_counter(), time.process_time()
        loss = torch.nn.functional.mse_loss(unet(sample, torch.tensor([500]), encoder_hidden_states=context).sample, noise)
        loss.backward()
        walls.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
        for p in unet.parameters():
            p.grad = None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    middle = len(walls) // 2
    print(f"PyTorch {pixels} px, {mode}: median {sorted(walls)[middle]:.2f} s, processor {sorted(busy)[middle]:.2f} s, peak {peak:.2f} GB", flush=True)


def main():
    if sys.argv[1:2] == ["--one"]:
        return one(int(sys.argv[2]), sys.argv[3])
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    build = ["cargo", "build", "--release", "-q", "-p", "atelier-models", "--example", "bench_train"]
    subprocess.run(build, cwd=root, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))
    bench = os.path.join(target, "release", "examples", "bench_train")
    ours = [("f32", "boundaries"), ("f32", "all"), ("f16", "boundaries"), ("f16", "all")]
    for pixels in sys.argv[1:] or ["256", "512"]:
        for mode in ("checkpointing", "plain"):
            subprocess.run([sys.executable, __file__, "--one", pixels, mode], check=True)
        for storage, keep in ours:
            run = subprocess.run([bench, pixels, storage, keep, str(STEPS)], check=True, capture_output=True, text=True)
            print("atelier", run.stdout.splitlines()[-1], flush=True)


main()
