#!/usr/bin/env python3
"""Where the time of a whole model goes on a GPU: kernels of our engine and of torch.compile with CUDA graphs, as CUPTI saw them.

gpu_kernels.py NAME…   names as in gpu_models.py --list; for each side a line per kernel: microseconds a call, launches a call,
the longest, its name
"""

import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
import gpu_models  # noqa: E402
import gpu_models_torch as peer  # noqa: E402

CALLS, KERNELS = 10, 25


def print_kernels(title: str, call) -> None:
    for _ in range(5):
        call()
    alone = peer.microseconds(call)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(CALLS):
            call()
        torch.cuda.synchronize()
    times: dict[str, list[float]] = defaultdict(list)
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name].append(event.time_range.elapsed_us())
    total = sum(map(sum, times.values())) / CALLS
    launches = sum(map(len, times.values())) / CALLS
    print(f"{title}: {alone:.1f} us a call; {launches:.0f} kernels, {total:.1f} us of them", flush=True)
    for name, each in sorted(times.items(), key=lambda item: -sum(item[1]))[:KERNELS]:
        print(f"  {sum(each) / CALLS:9.1f} {len(each) / CALLS:6.1f} {max(each):8.1f}  {name[:150]}", flush=True)


def main() -> None:
    with torch.inference_mode():
        for name in sys.argv[1:]:
            row = gpu_models.Row(name)
            print_kernels(f"{name}, ours", lambda row=row: row.context.run(row.inputs, row.outputs))
            del row
            module, given = peer.placed(name)
            compiled = torch.compile(module, mode="reduce-overhead")
            print_kernels(f"{name}, torch.compile", lambda compiled=compiled, given=given: compiled(given))
            del compiled, module, given
            torch._dynamo.reset()


if __name__ == "__main__":
    main()
