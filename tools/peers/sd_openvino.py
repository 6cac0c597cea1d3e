"""The networks of Stable Diffusion 1.5 in OpenVINO, on the work of `atelier benchmark --suite unet,vae,text`.

The same networks with random weights as `sd_pytorch.py`, converted in a process of their own, so that the peak of memory is
OpenVINO's and not the conversion's. Prints one line of JSON, whose name is atelier's.

    pip install openvino torch diffusers transformers
    python tools/peers/sd_openvino.py unet|vae_decode|vae_encode|text [--size 512] [--format f32|bf16] [--runs 3]

--models DIR keeps the converted networks for the next time.
"""

import os
import subprocess
import sys
import tempfile

import sd_pytorch
from sd_pytorch import THREADS


def convert(work, size, path):
    import numpy as np
    import openvino as ov
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    name, net, inputs = sd_pytorch.build(work, size)
    with torch.inference_mode():
        model = ov.convert_model(net.eval().requires_grad_(False), example_input=inputs)
    for port, tensor in zip(model.inputs, inputs):
        port.get_node().set_partial_shape(ov.PartialShape(list(tensor.shape)))
    model.validate_nodes_and_infer_types()
    ov.save_model(model, path, compress_to_fp16=False)
    np.savez(path + ".npz", *[tensor.numpy() for tensor in inputs], name=np.array(name))


def main():
    parser = sd_pytorch.arguments(__doc__)
    parser.add_argument("--models", help="folder for converted networks")
    parser.add_argument("--convert", metavar="FILE", help="write the converted network there, and stop")
    args = parser.parse_args()
    if args.convert:
        return convert(args.work, args.size, args.convert)
    import numpy as np
    import openvino as ov

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.models or scratch
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{args.work}-{args.size}.xml")
        if not os.path.exists(path + ".npz"):
            own = [sys.executable, __file__, args.work, "--size", str(args.size), "--convert", path]
            subprocess.run(own, check=True, stdout=sys.stderr)
        stored = np.load(path + ".npz")
        inputs = [stored[f"arr_{i}"] for i in range(len(stored.files) - 1)]
        settings = {
            "INFERENCE_PRECISION_HINT": args.format,
            "INFERENCE_NUM_THREADS": str(THREADS),
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
        seconds = sd_pytorch.measure(lambda: request.infer(inputs), args.runs)
        sd_pytorch.tell(f"OpenVINO {args.format}", str(stored["name"]), seconds)


if __name__ == "__main__":
    main()
