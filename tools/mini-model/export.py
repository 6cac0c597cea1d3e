"""Writes the trained networks as a Stable Diffusion folder (diffusers layout, f16 safetensors).

The latents are centred and scaled inside the autoencoder's 1x1 quantisation convolutions, exactly, so that each
channel has mean 0 and the standard deviation 1 / 0.18215 that Stable Diffusion's own scaling_factor undoes.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import tokenizer
import train
import vae
from common import MODEL, WORK, load_photos

VERSION = "0.42.1"  # of diffusers, as pinned in requirements.txt
SCHEDULER = {
    "_class_name": "PNDMScheduler", "_diffusers_version": VERSION, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "prediction_type": "epsilon", "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
}  # fmt: skip
INDEX = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": VERSION, "feature_extractor": [None, None],
    "image_encoder": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}  # fmt: skip
TEXT_KEYS = """architectures attention_dropout bos_token_id dtype eos_token_id hidden_act hidden_size initializer_factor
initializer_range intermediate_size layer_norm_eps max_position_embeddings model_type num_attention_heads num_hidden_layers
pad_token_id projection_dim transformers_version vocab_size""".split()


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_weights(path, state):
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {k: v.to(torch.float16).contiguous() for k, v in state.items()}
    assert all(v.isfinite().all() for v in half.values())
    save_file(half, path, metadata={"format": "pt"})
    path.chmod(0o644)


def config(net, name):
    """A diffusers network's own configuration, without what only this process knows."""
    values = {k: v for k, v in json.loads(net.to_json_string()).items() if not k.startswith("_")}
    return {"_class_name": name, "_diffusers_version": VERSION, **values}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", type=Path, default=WORK)
    ap.add_argument("--out", type=Path, default=MODEL)
    args = ap.parse_args()
    _, records = load_photos(args.work, pixels=False)
    nets, _ = train.load(args.work, records)
    auto = vae.load(args.work, standard=True)

    write_json(args.out / "model_index.json", INDEX)
    write_json(args.out / "scheduler/scheduler_config.json", SCHEDULER)
    write_json(args.out / "unet/config.json", config(nets["unet"], "UNet2DConditionModel"))
    write_weights(args.out / "unet/diffusion_pytorch_model.safetensors", nets["unet"].state_dict())
    write_json(args.out / "vae/config.json", config(auto, "AutoencoderKL"))
    write_weights(args.out / "vae/diffusion_pytorch_model.safetensors", auto.state_dict())

    text = nets["text_encoder"].config.to_dict()
    text.update(architectures=["CLIPTextModel"], dtype="float16", transformers_version="5.23.0")
    write_json(args.out / "text_encoder/config.json", {k: text[k] for k in TEXT_KEYS})
    state = nets["text_encoder"].state_dict()
    state = {k if k.startswith("text_model.") else "text_model." + k: v for k, v in state.items() if "position_ids" not in k}
    write_weights(args.out / "text_encoder/model.safetensors", state)

    tokenizer.write(args.out / "tokenizer", sorted({r["brandName"] or "" for r in records}))
    shutil.copyfile(tokenizer.source()[1], args.out / "tokenizer/LICENSE")
    (args.out / "tokenizer/LICENSE").chmod(0o644)
    size = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    print(f"{args.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
