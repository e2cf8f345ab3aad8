"""tools/cuda_headers.py with wheels that are not downloaded: which packages it takes for which toolkit, and what it leaves."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import cuda_headers


class Headers(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.include = self.root / ".cache/cuda-headers/include"
        self.fetched: list[str] = []

    def toolkit(self, version: int, *headers: str) -> None:
        include = self.root / f"toolkit{version}/include"
        include.mkdir(parents=True)
        (include / "cuda_runtime_api.h").write_text(f"#define CUDART_VERSION  {version}\n")
        for header in headers:
            (include / header).touch()
        self.home = str(include.parent)

    def fetch(self, package: str, version: str, into: Path) -> list[str]:
        self.fetched.append(package)
        header = next(header for header, packages in cuda_headers.WANTED.items() if (package, version) in packages.values())
        files = [header, f"{package}_more.h"]
        for file in files:
            (into / file).write_text(package)
        return files

    def run_tool(self) -> list[str]:
        """What was fetched."""
        self.fetched.clear()
        folders = [Path(self.home) / "include"]
        told = {"ROOT": self.root, "fetch": self.fetch, "say": lambda _: None, "toolkit_folders": lambda: folders}
        with mock.patch.multiple(cuda_headers, **told), mock.patch.object(sys, "argv", ["cuda_headers.py"]):
            self.assertEqual(cuda_headers.main(), 0)
        return list(self.fetched)

    def test_what_the_toolkit_lacks_once(self) -> None:
        self.toolkit(13000, "nvrtc.h", "cublasLt.h")
        self.assertEqual(self.run_tool(), ["nvidia-nccl-cu13", "nvidia-cudnn-cu13", "nvidia-cudnn-frontend"])
        self.assertEqual(self.run_tool(), [])

    def test_another_toolkit_has_headers_of_its_own(self) -> None:
        self.toolkit(13000)
        self.run_tool()
        self.toolkit(12090)
        expected = ["nvidia-cuda-nvrtc-cu12", "nvidia-cublas-cu12", "nvidia-nccl-cu12", "nvidia-cudnn-cu12"]
        self.assertEqual(self.run_tool(), expected)
        self.assertEqual((self.include / "cublasLt.h").read_text(), "nvidia-cublas-cu12")
        self.assertFalse((self.include / "nvidia-cublas_more.h").exists())
        self.assertEqual(self.run_tool(), [])

    def test_a_toolkit_that_is_not_known(self) -> None:
        self.toolkit(99000)
        with self.assertRaisesRegex(SystemExit, "CUDA 99; headers are known for 12, 13"):
            self.run_tool()


if __name__ == "__main__":
    unittest.main()
