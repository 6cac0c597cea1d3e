"""Upscalers of the ESRGAN family in plain PyTorch, beside `upscale_file` and `bench_upscale`, on the same work.

The two networks as their papers and programs publish them (ESRGAN, arXiv:1809.00219; SRVGGNetCompact of Real-ESRGAN), under
the names of BasicSR. Weights: safetensors.

    pip install torch safetensors pillow numpy       # and ncnn, for the .param and .bin
    python tools/peers/upscale_pytorch.py image WEIGHTS IN.png OUT.png     # the whole image at once, f32
    python tools/peers/upscale_pytorch.py compare A.png B.png              # PSNR and the largest step
    python tools/peers/upscale_pytorch.py time WEIGHTS [SIDE]              # a tile in f32 and bf16
    python tools/peers/upscale_pytorch.py openvino WEIGHTS [SIDE]          # a tile in f32, with openvino
    python tools/peers/upscale_pytorch.py ncnn MODEL.param [SIDE]          # the same with ncnn, its .bin beside it
"""

import os
import resource
import sys
import time

import numpy as np

THREADS = int(os.environ.get("THREADS", "2"))
RUNS = int(os.environ.get("RUNS", "3"))


def networks():
    import torch
    from torch import nn
    from torch.nn import functional as F

    def conv(inputs, outputs):
        return nn.Conv2d(inputs, outputs, 3, padding=1)

    class Dense(nn.Module):
        def __init__(self, c, g):
            super().__init__()
            for i in range(4):
                setattr(self, f"conv{i + 1}", conv(c + i * g, g))
            self.conv5 = conv(c + 4 * g, c)

        def forward(self, x):
            stack = [x]
            for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
                stack.append(F.leaky_relu(layer(torch.cat(stack, 1)), 0.2))
            return x + 0.2 * self.conv5(torch.cat(stack, 1))

    class Block(nn.Module):
        def __init__(self, c, g):
            super().__init__()
            self.rdb1, self.rdb2, self.rdb3 = Dense(c, g), Dense(c, g), Dense(c, g)

        def forward(self, x):
            return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))

    class RRDBNet(nn.Module):
        def __init__(self, c=64, blocks=23, g=32, unshuffle=1, doublings=2):
            super().__init__()
            self.unshuffle, self.doublings = unshuffle, doublings
            self.conv_first = conv(3 * unshuffle**2, c)
            self.body = nn.Sequential(*[Block(c, g) for _ in range(blocks)])
            self.conv_body = conv(c, c)
            for i in range(doublings):
                setattr(self, f"conv_up{i + 1}", conv(c, c))
            self.conv_hr, self.conv_last = conv(c, c), conv(c, 3)

        def forward(self, x):
            x = self.conv_first(F.pixel_unshuffle(x, self.unshuffle))
            x = x + self.conv_body(self.body(x))
            for i in range(self.doublings):
                up = F.interpolate(x, scale_factor=2, mode="nearest")
                x = F.leaky_relu(getattr(self, f"conv_up{i + 1}")(up), 0.2)
            return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))

    class SRVGGNetCompact(nn.Module):
        def __init__(self, c=64, convs=32, scale=4):
            super().__init__()
            self.scale = scale
            body = [conv(3, c), nn.PReLU(c)]
            for _ in range(convs):
                body += [conv(c, c), nn.PReLU(c)]
            self.body = nn.ModuleList(body + [conv(c, 3 * scale**2)])

        def forward(self, x):
            y = x
            for layer in self.body:
                y = layer(y)
            return F.pixel_shuffle(y, self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")

    return RRDBNet, SRVGGNetCompact


def build(tensors):
    """The network of these tensors, told by their names and shapes."""
    rrdb, compact = networks()
    first = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("body."))
    if "conv_first.weight" in tensors:
        c, inputs = tensors["conv_first.weight"].shape[:2]
        doublings = sum(f"conv_up{i}.weight" in tensors for i in (1, 2, 3))
        growth = tensors["body.0.rdb1.conv1.weight"].shape[0]
        net = rrdb(c, first, growth, int((inputs // 3) ** 0.5), doublings)
    else:
        last = tensors[f"body.{first - 1}.weight"]
        net = compact(last.shape[1], (first - 3) // 2, int((last.shape[0] // 3) ** 0.5))
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return net.eval().requires_grad_(False)


def load(path):
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(THREADS)
    return build(load_file(path))


def timed(what, run):
    run()
    walls, busy = [], []
    for _ in range(RUNS):
        start, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    middle = RUNS // 2
    print(f"{what}: {sorted(walls)[middle]:.3f} s, processor {sorted(busy)[middle]:.2f} s, peak {peak:.0f} MB", flush=True)


def image(weights, source, target):
    import torch
    from PIL import Image

    net = load(weights)
    pixels = np.asarray(Image.open(source).convert("RGB"), np.float32) / 255
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
    y = net(x)[0].clamp(0, 1).numpy().transpose(1, 2, 0)
    Image.fromarray((y * 255).round().astype(np.uint8)).save(target)


def compare(first, second):
    from PIL import Image

    a, b = (np.asarray(Image.open(path).convert("RGB"), np.float64) for path in (first, second))
    mse = ((a - b) ** 2).mean()
    psnr = 10 * np.log10(255**2 / mse) if mse > 0 else float("inf")
    print(f"PSNR {psnr:.2f} dB, largest difference {np.abs(a - b).max():.0f} of 255")


def times(weights, side=128):
    import torch

    net = load(weights)
    x = torch.rand(1, 3, int(side), int(side))
    timed(f"PyTorch f32, {side}²", lambda: net(x))
    half = net.to(torch.bfloat16).to(memory_format=torch.channels_last)
    y = x.to(torch.bfloat16).to(memory_format=torch.channels_last)
    timed(f"PyTorch bf16, {side}²", lambda: half(y))


def openvino_times(weights, side=128):
    import openvino as ov
    import torch

    x = torch.rand(1, 3, int(side), int(side))
    with torch.inference_mode():
        model = ov.convert_model(load(weights).eval(), example_input=(x,))
    model.reshape(list(x.shape))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(THREADS), "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    timed(f"OpenVINO f32, {side}²", lambda: request.infer([x.numpy()]))


def ncnn_times(param, side=128):
    import ncnn

    for name, bf16 in (("f32", False), ("bf16", True)):
        net = ncnn.Net()
        net.opt.num_threads = THREADS
        net.opt.use_bf16_storage = bf16
        net.load_param(param)
        net.load_model(os.path.splitext(param)[0] + ".bin")
        x = ncnn.Mat(np.random.default_rng(0).random((3, int(side), int(side)), np.float32))

        def run():
            run = net.create_extractor()
            run.input(net.input_names()[0], x)
            return run.extract(net.output_names()[0])

        timed(f"ncnn {name}, {side}²", run)


if __name__ == "__main__":
    {"image": image, "compare": compare, "time": times, "openvino": openvino_times, "ncnn": ncnn_times}[sys.argv[1]](*sys.argv[2:])
