#!/usr/bin/env python3
"""Says how much CPU time this machine is losing: one pinned process a core reads the clock in a loop and adds up the gaps.

    spin_probe.py [--seconds 0.5] [--limit 3]

Prints the share of time lost on each core in percent; exit 1 if any is above the limit. A quiet machine loses below 1 %. Virtual machines
lose whole minutes to their host without the kernel's counters showing it, and a timing taken then says nothing.
"""

import argparse
import multiprocessing
import os
import sys
import time

GAP_NS = 20_000  # one turn of the loop takes well below 1 µs; a timer interrupt some 5 µs; a lost slice of time milliseconds


def spin(core: int, seconds: float, start: float) -> float:
    os.sched_setaffinity(0, {core})
    while time.monotonic() < start:
        pass
    clock = time.perf_counter_ns
    begin = last = clock()
    end = begin + int(seconds * 1e9)
    lost = 0
    while last < end:
        now = clock()
        if now - last > GAP_NS:
            lost += now - last
        last = now
    return 100.0 * lost / (last - begin)


def measure(seconds: float = 0.5) -> list[float]:
    """Percent of time lost on each core that this process may use, all cores at once."""
    cores = sorted(os.sched_getaffinity(0))
    start = time.monotonic() + 0.1
    with multiprocessing.get_context("fork").Pool(len(cores)) as pool:
        return pool.starmap(spin, [(core, seconds, start) for core in cores], chunksize=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--limit", type=float, default=3.0, help="percent")
    args = parser.parse_args()
    losses = measure(args.seconds)
    print("lost: " + ", ".join(f"core {core} {loss:.1f} %" for core, loss in zip(sorted(os.sched_getaffinity(0)), losses, strict=True)))
    return 1 if max(losses) > args.limit else 0


if __name__ == "__main__":
    sys.exit(main())
