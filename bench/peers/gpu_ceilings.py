#!/usr/bin/env python3
"""What a GPU gives at most, by PyTorch: a large copy on the device and a large matrix product, one at a time (medians) and on end for
seconds, when the limit of power lowers the clock. One line of JSON each."""

import json
import statistics

import torch


def milliseconds(work, repeats: int = 20) -> float:
    for _ in range(5):
        work()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def milliseconds_on_end(work, calls: int = 2000) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(calls):
        work()
    begin.record()
    for _ in range(calls):
        work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / calls


source = torch.randn(1 << 30, device="cuda", dtype=torch.float32)
target = torch.empty_like(source)
copy = milliseconds(lambda: target.copy_(source))
print(json.dumps({"name": "copy", "ms": copy, "tb_s": 2 * source.numel() * 4 / copy / 1e9}))
del source, target
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
product = milliseconds(lambda: a @ b)
print(json.dumps({"name": "product 8192 bf16", "ms": product, "tflop_s": 2 * 8192**3 / product / 1e9}))
steady = milliseconds_on_end(lambda: a @ b)
print(json.dumps({"name": "product 8192 bf16 on end", "ms": steady, "tflop_s": 2 * 8192**3 / steady / 1e9}))
versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
print(json.dumps({"name": "versions", **versions, "device": torch.cuda.get_device_name()}))
