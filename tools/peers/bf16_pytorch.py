"""What bf16 costs PyTorch: latents after whole runs of a pipeline in f32 and in bf16, from the same noise.

    python tools/peers/bf16_pytorch.py MODEL_FOLDER OUT.safetensors [--size 128] [--seeds 4] [--steps 20]

MODEL_FOLDER is one of diffusers; needs torch, diffusers, transformers and safetensors. Prints the distance of each seed,
relative to the length of the latents in f32, and writes what `cargo test -p atelier --test integration bf16` compares with.
"""
import argparse
import json

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

PROMPT = "A professional product photo of navy blue casual shoes, summer collection, men, centered on white background"
SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "use_karras_sigmas")


def pipeline(folder, dtype):
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, dtype=dtype, safety_checker=None, requires_safety_checker=False
    )
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, use_karras_sigmas=True, algorithm_type="dpmsolver++", solver_order=2
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model")
    arguments.add_argument("out")
    arguments.add_argument("--size", type=int, default=128, help="side of the picture")
    arguments.add_argument("--seeds", type=int, default=4)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--guidance", type=float, default=5.0)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    exact, rounded = (pipeline(options.model, dtype) for dtype in (torch.float32, torch.bfloat16))
    side = options.size // exact.vae_scale_factor

    def noise(seed):
        shape = (1, exact.unet.config.in_channels, side, side)
        # Both start at the same numbers.
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()

    def latents(pipe, start):
        run = pipe(
            PROMPT,
            latents=start.to(pipe.unet.dtype),
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            height=options.size,
            width=options.size,
            output_type="latent",
        )
        return run.images.float()

    with torch.no_grad():
        starts = [noise(seed) for seed in range(1, options.seeds + 1)]
        finals = [(latents(exact, start), latents(rounded, start)) for start in starts]
    for seed, (f32, bf16) in enumerate(finals, 1):
        print(f"seed {seed}: bf16 is {(bf16 - f32).norm() / f32.norm():.4f} from f32", flush=True)
    tensors = {
        "latents": torch.cat(starts).float(),
        "karras.final_latents": torch.cat([f32 for f32, _ in finals]),
        "karras.final_latents_bf16": torch.cat([bf16 for _, bf16 in finals]),
    }
    config = {key: exact.scheduler.config[key] for key in SCHEDULE}
    metadata = {
        "prompt": PROMPT,
        "negative": "",
        "steps": str(options.steps),
        "guidance_scale": str(options.guidance),
        "schedulers": json.dumps({"karras": [type(exact.scheduler).__name__, config]}),
        "torch": torch.__version__,
    }
    save_file(tensors, options.out, metadata)


if __name__ == "__main__":
    main()
