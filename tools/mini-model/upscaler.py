"""The real upscaler that enlarges the small catalogue photos: Real-ESRGAN general x4 v3 (SRVGGNetCompact)."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file


class SRVGGNetCompact(nn.Module):
    """`body.N` convolutions and PReLUs; PixelShuffle of the last one plus a nearest-neighbour enlargement."""

    def __init__(self, channels=64, convs=32, scale=4):
        super().__init__()
        self.scale = scale
        layers = [nn.Conv2d(3, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(convs):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        layers.append(nn.Conv2d(channels, 3 * scale * scale, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            h = self.body[:-1](x)
        h = self.body[-1](h.float())
        return (F.pixel_shuffle(h, self.scale) + F.interpolate(x, scale_factor=self.scale)).clamp(0, 1)


def load_upscaler(path):
    """Reads the safetensors file whose keys are `body.N.weight` / `body.N.bias`."""
    net = SRVGGNetCompact()
    net.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return net.to(memory_format=torch.channels_last).eval().requires_grad_(False)
