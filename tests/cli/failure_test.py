"""Signals, and ranks that die or stop: how the program ends, what it says, what it leaves behind."""

import json
import os
import signal
import time
import unittest
from pathlib import Path

import numpy as np
from program import PATIENCE, ProgramTest, Running, children_of, is_alive, lookup, model_path, product, wait_until
from safetensors.numpy import load_file, save_file

ENDLESS = ["--runs", "1000000"]


def shared_files() -> set[str]:
    """What outlives processes: names in /dev/shm (anonymous memory has none)."""
    return {p.name for p in Path("/dev/shm").iterdir() if "tandem" in p.name} if Path("/dev/shm").is_dir() else set()


class Signals(ProgramTest):
    def test_first_signal_ends_in_order(self) -> None:
        before = shared_files()
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            for isolate, count in (("processes", 2), ("threads", 0)):
                with (
                    self.subTest(signal=number, isolate=isolate),
                    Running(self, "bench", self.save(product()), "--mesh", "tp=2", "--isolate", isolate, *ENDLESS) as program,
                ):
                    ranks = program.wait_for_ranks(count)
                    if not count:
                        time.sleep(1)
                    program.process.send_signal(number)
                    status, out, _ = program.end()
                    self.assertEqual((status, out), (code, ""))
                    self.assertEqual([pid for pid in ranks if is_alive(pid)], [])
        self.assertEqual(shared_files(), before)

    def test_signal_to_the_whole_group(self) -> None:
        """As a terminal sends it: ranks leave the end to the program."""
        with Running(self, "bench", self.save(product()), "--mesh", "tp=2", *ENDLESS) as program:
            ranks = program.wait_for_ranks(2)
            for pid in [*ranks, program.process.pid]:
                os.kill(pid, signal.SIGINT)
            status, _, err = program.end()
            self.assertEqual(status, 130, err)
            self.assertNotIn("killed", err)

    def test_second_signal_ends_at_once(self) -> None:
        """A rank that is stopped cannot finish its step: one signal would wait for the drain deadline."""
        with Running(self, "bench", self.save(product()), "--mesh", "tp=2", *ENDLESS) as program:
            ranks = program.wait_for_ranks(2)
            os.kill(ranks[1], signal.SIGSTOP)
            program.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            self.assertIsNone(program.process.poll())
            begin = time.monotonic()
            program.process.send_signal(signal.SIGTERM)
            status, _, _ = program.end()
            self.assertEqual(status, 143)
            self.assertLess(time.monotonic() - begin, 5)
            self.assertTrue(wait_until(lambda: not any(is_alive(pid) for pid in ranks)), "ranks are left")

    def test_a_stopped_rank_does_not_hold_up_the_end(self) -> None:
        with Running(self, "bench", self.save(product()), "--mesh", "tp=2", *ENDLESS) as program:
            ranks = program.wait_for_ranks(2)
            os.kill(ranks[0], signal.SIGSTOP)
            program.process.send_signal(signal.SIGINT)
            status, _, _ = program.end()
            self.assertEqual(status, 130)
            self.assertTrue(wait_until(lambda: not any(is_alive(pid) for pid in ranks)), "ranks are left")

    def test_no_half_outputs(self) -> None:
        """Interrupted at any moment, the outputs are whole or not there."""
        for pause in (0.0, 0.05, 0.1, 0.2, 0.4):
            out = self.folder / "out.safetensors"
            with Running(self, "run", model_path("mlp_legacy"), "--mesh", "tp=2", "--outputs", out) as program:
                time.sleep(pause)
                program.process.send_signal(signal.SIGINT)
                status, _, _ = program.end()
            # A signal before the first line of main ends the program as it does any other.
            self.assertIn(status, (0, 130, -signal.SIGINT))
            self.assertTrue(status != 0 or out.exists())
            if out.exists():
                self.assertIn("y", load_file(out))
                out.unlink()
            self.assertEqual([p.name for p in self.folder.iterdir()], [])


class Supervisor(ProgramTest):
    def test_no_orphan_after_kill(self) -> None:
        before = shared_files()
        for stopped in (False, True):
            with self.subTest(stopped=stopped), Running(self, "bench", self.save(product()), "--mesh", "dp=2,tp=2", *ENDLESS) as program:
                ranks = program.wait_for_ranks(4)
                if stopped:
                    os.kill(ranks[1], signal.SIGSTOP)
                program.process.kill()
                program.process.wait(PATIENCE)
                self.assertTrue(wait_until(lambda: not any(is_alive(pid) for pid in ranks), 10), "ranks are left")
        self.assertEqual(shared_files(), before)

    def test_kill_while_starting(self) -> None:
        for pause in (0.02, 0.05, 0.1):
            with Running(self, "bench", model_path("bert_legacy"), "--mesh", "tp=2", *ENDLESS) as program:
                time.sleep(pause)
                ranks = children_of(program.process.pid)
                program.process.kill()
                program.process.wait(PATIENCE)
                self.assertTrue(wait_until(lambda: not any(is_alive(pid) for pid in ranks), 10), "ranks are left")


class Ranks(ProgramTest):
    def error_after(self, number: int, mesh: str, rank: int) -> dict:
        """Rank `rank` gets a signal in the middle of its work."""
        with Running(self, "bench", self.save(product()), "--mesh", mesh, "--deadline", "1", "--json", *ENDLESS) as program:
            count = 4 if "," in mesh else 2
            ranks = program.wait_for_ranks(count)
            begin = time.monotonic()
            os.kill(ranks[rank], number)
            status, out, err = program.end()
            self.assertLess(time.monotonic() - begin, 30)
            self.assertEqual(status, 1, err)
            self.assertEqual([pid for pid in ranks if is_alive(pid)], [])
        error = json.loads(out)["error"]
        self.assertEqual(error["rank"], rank, error)
        self.assertIn(f"rank {rank}", err)
        return error

    def test_killed(self) -> None:
        for mesh, rank in (("tp=2", 0), ("tp=2", 1), ("dp=2", 1), ("dp=2,tp=2", 3)):
            with self.subTest(mesh=mesh, rank=rank):
                error = self.error_after(signal.SIGKILL, mesh, rank)
                self.assertEqual(error["code"], "rank_failed")
                self.assertIn("signal 9", error["message"])
                self.assertIn("steps", error["message"])

    def test_crashed(self) -> None:
        error = self.error_after(signal.SIGSEGV, "tp=2", 1)
        self.assertEqual(error["code"], "rank_failed")

    def test_stopped(self) -> None:
        for mesh in ("tp=2", "dp=2"):
            with self.subTest(mesh=mesh):
                error = self.error_after(signal.SIGSTOP, mesh, 1)
                self.assertEqual(error["code"], "timeout")
                self.assertIn("no progress for 1.0 s", error["message"])

    def test_error_of_a_rank(self) -> None:
        save_file({"ids": np.array([0, 1, 2, 9])}, self.folder / "in.safetensors")
        self.refuse(
            "run",
            self.save(lookup()),
            "--mesh",
            "dp=2",
            "--inputs",
            "in.safetensors",
            code="invalid_argument",
            says=["rank 1", "embedding/lookup", "9"],
            node=True,
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
