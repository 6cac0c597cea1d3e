"""A perceptual distance: early features of EfficientNet-Lite0 (ImageNet, Apache-2.0)."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file



class Perceptual(nn.Module):
    """Mean absolute difference of normalised features at 1/2, 1/4 and 1/8 of the size. Input in -1..1."""

    def __init__(self, path):
        super().__init__()
        w = {k: v.float() for k, v in load_file(path).items()}
        self.layers = []

        def conv(name, norm, stride=1, depthwise=False):
            scale = w[norm + ".weight"] / (w[norm + ".running_var"] + 1e-3).sqrt()
            k = w[name + ".weight"] * scale[:, None, None, None]
            b = w[norm + ".bias"] - w[norm + ".running_mean"] * scale
            k = k.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
            return k, b.to(torch.bfloat16), stride, k.shape[0] if depthwise else 1

        self.stem = conv("_conv_stem", "_bn0", 2)
        strides, expands, skips = (1, 2, 1, 2, 1), (1, 6, 6, 6, 6), (0, 0, 1, 0, 1)
        self.blocks = []
        for i, (s, e, skip) in enumerate(zip(strides, expands, skips)):
            p = f"_blocks.{i}"
            parts = [] if e == 1 else [conv(p + "._expand_conv", p + "._bn0")]
            parts += [conv(p + "._depthwise_conv", p + "._bn1", s, True), conv(p + "._project_conv", p + "._bn2")]
            self.blocks.append((parts, skip))

    @staticmethod
    def apply_conv(x, c):
        k, b, stride, groups = c
        n, size = k.shape[-1], x.shape[-1]
        pad = max((-(-size // stride) - 1) * stride + n - size, 0)  # TensorFlow's SAME
        if pad:
            x = F.pad(x, (pad // 2, pad - pad // 2) * 2)
        return F.conv2d(x, k, b, stride, groups=groups)

    def features(self, x):
        x = F.relu6(self.apply_conv(x, self.stem))
        out = [x]
        for i, (parts, skip) in enumerate(self.blocks):
            h = x
            for c in parts[:-1]:
                h = F.relu6(self.apply_conv(h, c))
            h = self.apply_conv(h, parts[-1])
            x = x + h if skip else h
            if i in (2, 4):
                out.append(x)
        return out

    def forward(self, x, y):
        with torch.no_grad():
            real = self.features(y)
        return sum((a - b).abs().mean() / b.abs().mean().clamp_min(1e-3) for a, b in zip(self.features(x), real))
