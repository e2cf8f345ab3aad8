#!/usr/bin/env python3
"""PyTorch beside bench/gpu_ranks_bench: the same rows on as many GPUs, a process each, in CUDA graphs; every answer is that of the
fastest way.

gpu_ranks_torch.py RANKS    reads names from stdin, a line each; answers each with a line of JSON

Attention over the sequence: NCCL all-to-all of heads, or all-gather of keys and values, around cuDNN; packing is in the time. All-reduce
with residual and RMSNorm: NCCL, NCCL on memory that all ranks have registered as a symmetric window (from PyTorch 2.9 and NCCL 2.27 on), or
the one-shot and two-shot kernels of symmetric memory, then one compiled kernel. `ways` has the microseconds of each, or why it has none.
"""

import functools
import json
import os
import re
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed._symmetric_memory as symmetric
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, SIZE, WIDTH, CHAINED = 24, 128, 4096, 200
MOST_ROWS = 2048  # of a reduction


def heads_first(qkv):
    return qkv.permute(2, 0, 3, 1, 4)  # [3, 1, heads, rows, size]


def attend(q, k, v, causal):
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def by_heads(length, causal, ranks, rank):
    local = length // ranks
    qkv = torch.randn(1, local, 3, HEADS, SIZE, device="cuda", dtype=torch.bfloat16)
    arrived = torch.empty(ranks, local, 3, HEADS // ranks, SIZE, device="cuda", dtype=torch.bfloat16)
    back = torch.empty(ranks, local, HEADS // ranks, SIZE, device="cuda", dtype=torch.bfloat16)

    def work():
        packed = qkv.view(local, 3, ranks, HEADS // ranks, SIZE).permute(2, 0, 1, 3, 4).contiguous()
        dist.all_to_all_single(arrived, packed)
        q, k, v = heads_first(arrived.view(1, length, 3, HEADS // ranks, SIZE)).unbind(0)
        out = attend(q, k, v, causal).transpose(1, 2).contiguous().view(ranks, local, HEADS // ranks, SIZE)
        dist.all_to_all_single(back, out)
        return back.permute(1, 0, 2, 3).contiguous()

    return work


def by_keys(length, causal, ranks, rank):
    local = length // ranks
    qkv = torch.randn(1, local, 3, HEADS, SIZE, device="cuda", dtype=torch.bfloat16)
    arrived = torch.empty(ranks, local, 2, HEADS, SIZE, device="cuda", dtype=torch.bfloat16)

    def work():
        dist.all_gather_into_tensor(arrived, qkv[0, :, 1:].contiguous())
        k, v = arrived.view(1, length, 2, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        q = qkv[:, :, 0].transpose(1, 2)
        if not causal:
            return attend(q, k, v, False).transpose(1, 2).contiguous()
        # This rank's rows see all keys before them, and of their own the lower triangle: two calls would need merging; cuDNN through
        # PyTorch aligns causal masks to the upper left corner only, so the rows before are computed too.
        whole = torch.zeros(1, HEADS, length, SIZE, device="cuda", dtype=torch.bfloat16)
        whole[:, :, rank * local : (rank + 1) * local] = q
        end = (rank + 1) * local
        return attend(whole[:, :, :end], k[:, :, :end], v[:, :, :end], True)[:, :, rank * local :].transpose(1, 2).contiguous()

    return work


@torch.compile
def finish_into(x, residual, weight, out):
    out.copy_(F.rms_norm(x + residual, (WIDTH,), weight, 1e-5))


def reduction(rows, reduce):
    residual = torch.randn(rows, WIDTH, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(WIDTH, device="cuda", dtype=torch.bfloat16)
    x = reduce.buffer(rows)
    x.normal_()

    def work():
        for _ in range(CHAINED):
            finish_into(reduce(x), residual, weight, x)

    return work


class Nccl:
    def buffer(self, rows):
        return torch.empty(rows, WIDTH, device="cuda", dtype=torch.bfloat16)

    def __call__(self, x):
        dist.all_reduce(x)
        return x


@functools.cache
def window():
    """Memory of NCCL's that all ranks have registered with each other. It stays: a pool must not go before its registration."""
    backend = dist.group.WORLD._get_backend(torch.device("cuda", torch.cuda.current_device()))
    pool = torch.cuda.MemPool(backend.mem_allocator)
    with torch.cuda.use_mem_pool(pool):
        memory = torch.empty(MOST_ROWS, WIDTH, device="cuda", dtype=torch.bfloat16)
    backend.register_mem_pool(pool, symm=True)
    return memory, pool


class NcclWindows(Nccl):
    def buffer(self, rows):
        return window()[0][:rows]


class Symmetric:
    def __init__(self, op):
        self.op = op

    def buffer(self, rows):
        x = symmetric.empty(rows, WIDTH, device="cuda", dtype=torch.bfloat16)
        symmetric.rendezvous(x, dist.group.WORLD.group_name)
        return x

    def __call__(self, x):
        return getattr(torch.ops.symm_mem, self.op)(x, "sum", dist.group.WORLD.group_name)


def seconds_of(work):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            work()
        torch.cuda.synchronize()

        def run(calls):
            dist.barrier(group=HOST)
            begin = time.perf_counter()
            for _ in range(calls):
                graph.replay()
            torch.cuda.synchronize()
            mine = torch.tensor((time.perf_counter() - begin) / calls)
            dist.all_reduce(mine, dist.ReduceOp.MAX, group=HOST)
            return mine.item()

        once = run(3)
        seconds = statistics.median(run(max(5, min(200, int(0.05 / once)))) for _ in range(3))
    del graph
    return seconds


def ways(name, ranks, rank):
    if match := re.match(r"Attention over ranks (\d+)K( causal)?", name):
        length, causal = int(match[1]) * 1024, bool(match[2])
        return {"all-to-all": lambda: by_heads(length, causal, ranks, rank), "all-gather": lambda: by_keys(length, causal, ranks, rank)}, 1
    if match := re.match(r"AllReduce .* (\d+) KB", name):
        rows = int(match[1]) * 1024 // (2 * WIDTH)
        kinds = {
            "NCCL": Nccl(),
            "NCCL windows": NcclWindows(),
            "one-shot": Symmetric("one_shot_all_reduce"),
            "two-shot": Symmetric("two_shot_all_reduce_"),
        }
        return {kind: (lambda reduce=reduce: reduction(rows, reduce)) for kind, reduce in kinds.items()}, CHAINED
    return {}, 1


def answer(name, ranks, rank):
    makers, calls = ways(name, ranks, rank)
    times, failed = {}, {}
    for kind, make in makers.items():
        try:
            times[kind] = seconds_of(make()) / calls * 1e6
        except Exception as error:  # noqa: BLE001 - a way that this PyTorch lacks; on all ranks alike
            failed[kind] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    if not times:
        return {"name": name, "failed": str(failed) or "no such row"}
    best = min(times, key=times.get)
    return {"name": name, "us": times[best], "way": best, "ways": {kind: round(us, 2) for kind, us in times.items()} | failed}


def serve(rank, ranks, names):
    global HOST
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29600 + os.getppid() % 1000), NCCL_NVLS_ENABLE="0")
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=ranks, device_id=torch.device("cuda", rank))
    HOST = dist.new_group(backend="gloo")
    while True:
        told = [names.get() if rank == 0 else None]
        dist.broadcast_object_list(told, 0, group=HOST)
        if not told[0]:
            break
        result = answer(told[0], ranks, rank)
        if rank == 0:
            print(json.dumps(result), flush=True)
    torch.cuda.synchronize()
    os._exit(0)


def main():
    ranks = int(sys.argv[1])
    names = mp.get_context("spawn").SimpleQueue()
    processes = mp.spawn(serve, (ranks, names), nprocs=ranks, join=False)
    for line in sys.stdin:
        names.put(line.strip())
    names.put("")
    while not processes.join():
        pass


if __name__ == "__main__":
    main()
