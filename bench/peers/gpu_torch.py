#!/usr/bin/env python3
"""PyTorch beside bench/gpu_bench: the same rows under the same names, on random operands that are rotated; CUDA graphs, medians left to
the caller.

gpu_torch.py    reads names from stdin, a line each; answers each with a line of JSON
"""

import json
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BF16 = torch.bfloat16
ROWS, LENGTH = 65536, 4096


def random(*shape, dtype=BF16):
    return torch.randn(*shape, device="cuda", dtype=dtype)


def matmul(m, k, n, dtype=BF16):
    return lambda: (random(m, k, dtype=dtype), random(k, n, dtype=dtype)), torch.matmul


def top_k(rows, length, k, dtype):
    return lambda: (random(rows, length, dtype=dtype),), lambda x: torch.topk(x, k)


def attention(heads, kv_heads, rows, columns, causal=False, batch=1):
    def work(q, k, v):
        backends = (
            [SDPBackend.CUDNN_ATTENTION] if rows > 1 else [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        )
        with sdpa_kernel(backends):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads != kv_heads)

    return lambda: (random(batch, heads, rows, 128), random(batch, kv_heads, columns, 128), random(batch, kv_heads, columns, 128)), work


def add_rms_norm(x, y, w):
    s = x + y
    return F.rms_norm(s, (LENGTH,), w), s


def six(x):
    return torch.sigmoid(torch.tanh(x * 0.5) * x + 1) * x


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


PEERS = {
    "Copy of 1.07 GB": (lambda: (random(ROWS, LENGTH),), torch.clone),
    "LayerNorm": (lambda: (random(ROWS, LENGTH), random(LENGTH), random(LENGTH)), lambda x, w, b: F.layer_norm(x, (LENGTH,), w, b)),
    "RmsNorm": (lambda: (random(ROWS, LENGTH), random(LENGTH)), torch.compile(lambda x, w: F.rms_norm(x, (LENGTH,), w))),
    "AddRmsNorm": (lambda: (random(ROWS, LENGTH), random(ROWS, LENGTH), random(LENGTH)), torch.compile(add_rms_norm)),
    "Softmax 4096": (lambda: (random(ROWS, LENGTH),), lambda x: F.softmax(x, -1)),
    "Softmax 512": (lambda: (random(ROWS * 8, 512),), lambda x: F.softmax(x, -1)),
    "Pointwise of six": (lambda: (random(ROWS, LENGTH),), torch.compile(six)),
    "Add": (lambda: (random(ROWS, LENGTH), random(ROWS, LENGTH)), torch.add),
    "RotaryEmbedding": (lambda: (random(8, 32, 8192, 128), random(1, 1, 8192, 64), random(1, 1, 8192, 64)), torch.compile(rotate)),
    "Transpose": (lambda: (random(16384, 16384),), lambda x: x.t().contiguous()),
    "Transpose heads": (lambda: (random(16, 2048, 32, 128),), lambda x: x.transpose(1, 2).contiguous()),
    "Reduce rows": (lambda: (random(ROWS, 8192),), lambda x: x.sum(1)),
    "Reduce columns": (lambda: (random(ROWS, 8192),), lambda x: x.sum(0)),
    "TopK 64x32000 k 50 f32": top_k(64, 32000, 50, torch.float32),
    "TopK 64x32000 k 50 bf16": top_k(64, 32000, 50, BF16),
    "MatMul 8192 bf16": matmul(8192, 8192, 8192),
    "MatMul 2048x14336x4096 bf16": matmul(2048, 14336, 4096),
    "MatMul 16x4096x4096 bf16": matmul(16, 4096, 4096),
    "MatMul 2x4096x4096 bf16": matmul(2, 4096, 4096),
    "MatMul 8x4096x4096 bf16": matmul(8, 4096, 4096),
    "MatMul 16x4096x1536 bf16": matmul(16, 4096, 1536),
    "MatMul 16x4096x28672 bf16": matmul(16, 4096, 28672),
    "MatMul 4096 f32": matmul(4096, 4096, 4096, torch.float32),
    "MatMul 4096 f32 as TF32": matmul(4096, 4096, 4096, torch.float32),
    "MatMul 1x4096x28672 bf16": matmul(1, 4096, 28672),
    "MatMul 1x4096x7168 bf16": matmul(1, 4096, 7168),
    "MatMul 1x4096x1536 bf16": matmul(1, 4096, 1536),
    "Attention 8K": attention(24, 24, 8192, 8192),
    "Attention 8K causal": attention(24, 24, 8192, 8192, True),
    "Attention 32K": attention(24, 24, 32768, 32768),
    "Attention 131K": attention(24, 24, 131072, 131072),
    **{f"Attention decode {n}": attention(32, 8, 1, n) for n in (1024, 8192, 16384, 32768)},
    **{f"Attention decode {n}, batch 16": attention(32, 8, 1, n, batch=16) for n in (1024, 2048, 4096, 8192, 32768)},
}


def measure(make, work) -> float:
    """Microseconds of one call."""
    first = make()
    size = sum(t.numel() * t.element_size() for t in first)
    sets = [first] + [make() for _ in range(min(63, max(1, int(1e9 / size))))]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for operands in sets[:2]:
            work(*operands)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work(*first)
        end.record()
        end.synchronize()
        calls = min(500, max(3, int(20 / begin.elapsed_time(end))))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(calls):
                work(*sets[i % len(sets)])
        graph.replay()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
    return begin.elapsed_time(end) / calls * 1e3


def main() -> None:
    for line in sys.stdin:
        name = line.strip()
        torch.backends.cuda.matmul.allow_tf32 = name.endswith("as TF32")
        try:
            answer = {"name": name, "us": measure(*PEERS[name])}
        except Exception as error:  # told to the caller, who goes on with the next row
            answer = {"name": name, "failed": f"{type(error).__name__}: {error}"[:300]}
        torch.cuda.empty_cache()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
