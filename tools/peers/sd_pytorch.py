"""The networks of Stable Diffusion 1.5 in PyTorch and diffusers, on the work of `atelier benchmark --suite unet,vae,text`.

Random weights: speed does not depend on the values. One process is one measurement, since the peak of memory is that of a
process; it prints one line of JSON, whose name is atelier's. `tools/peers/compare` runs both in turn.

    pip install torch diffusers transformers
    python tools/peers/sd_pytorch.py unet|vae_decode|vae_encode|text [--size 512] [--format f32|bf16] [--runs 3]
"""

import argparse
import json
import os
import resource
import time

THREADS = int(os.environ.get("THREADS", "2"))
WORKS = ("unet", "vae_decode", "vae_encode", "text")
TOKENS = 77


def build(work, size):
    """Name, network and inputs, in torch's default type."""
    import torch

    class Whole(torch.nn.Module):
        """A network whose result is one tensor."""

        def __init__(self, net, run):
            super().__init__()
            self.net, self.run = net, run

        def forward(self, *inputs):
            return self.run(self.net, *inputs)

    side = size // 8
    if work == "text":
        from transformers import CLIPTextConfig, CLIPTextModel

        config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        ids = torch.arange(TOKENS)[None] * 601 % config.vocab_size
        net = Whole(CLIPTextModel(config), lambda net, ids: net(ids, return_dict=False)[0])
        return f"text encoder, {TOKENS} tokens", net, (ids,)
    if work == "unet":
        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        run = lambda net, x, t, context: net(x, t, encoder_hidden_states=context, return_dict=False)[0]
        inputs = (torch.randn(2, 4, side, side), torch.tensor([500]), torch.randn(2, TOKENS, 768))
        return f"UNet, batch 2, {size}x{size}", Whole(unet, run), inputs
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )
    if work == "vae_decode":
        net = Whole(vae, lambda net, z: net.decode(z, return_dict=False)[0])
        return f"VAE decode, {size}x{size}", net, (torch.randn(1, 4, side, side),)
    net = Whole(vae, lambda net, x: net.encode(x, return_dict=False)[0].mean)
    return f"VAE encode, {size}x{size}", net, (torch.rand(1, 3, size, size) * 2 - 1,)


def measure(run, runs):
    """Seconds of each run, after one that does not count."""
    run()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def tell(peer, name, seconds):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peer": peer, "name": name, "seconds": seconds, "peak_memory": peak}), flush=True)


def arguments(doc):
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--format", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--runs", type=int, default=3)
    return parser


def main():
    import torch

    args = arguments(__doc__).parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    half = args.format == "bf16"
    torch.set_default_dtype(torch.bfloat16 if half else torch.float32)
    name, net, inputs = build(args.work, args.size)
    net = net.eval().requires_grad_(False)
    if half and args.work != "text":
        net = net.to(memory_format=torch.channels_last)
        inputs = tuple(t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for t in inputs)
    with torch.inference_mode():
        seconds = measure(lambda: net(*inputs), args.runs)
    tell(f"PyTorch {args.format}", name, seconds)


if __name__ == "__main__":
    main()
