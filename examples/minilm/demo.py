"""The demonstration behind `make demo`: real sentences through all-MiniLM-L6-v2 on two CPU ranks, checked against ONNX Runtime.

    python demo.py --tandem build/cpu/bin/tandem --work build/demo

One ONNX file is built and run with tensor, context and data parallelism; exit status 1 if any embedding differs by more than 1e-4.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from make_onnx import make_model, model_folder
from safetensors.numpy import load_file, save_file

TOLERANCE = 1e-4
MESHES = {
    "tp=2": "tensor parallel: heads and hidden units split",
    "cp=2": "context parallel: tokens split",
    "dp=2": "data parallel: sentences split",
}
SENTENCES = [
    "A cat is sleeping on the warm windowsill.",
    "The kitten naps in the sunlight by the window.",
    "My neighbour's dog barks at every passing car.",
    "Shares fell sharply after the central bank raised interest rates.",
    "The stock market dropped when borrowing became more expensive.",
    "She is learning to play the violin.",
    "He practises the cello for an hour every evening.",
    "Heavy rain flooded the roads near the river last night.",
    "The storm left several streets under water.",
    "How do I reset the password of my account?",
    "I have forgotten my login and cannot get in any more, what now",
]


def step(text: str) -> None:
    print(f"\n[demo] {text}", flush=True)


def tokenize(sentences: list[str]) -> dict[str, np.ndarray[Any, Any]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()  # to the longest sentence
    encoded = tokenizer.encode_batch(sentences)
    ids = np.array([e.ids for e in encoded], np.int64)
    mask = np.array([e.attention_mask for e in encoded], np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def onnx_runtime(model: Path, inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["sentence_embedding"], inputs)[0])


def call(*command: object) -> str:
    """Runs one command of the program, shows it, and returns what it printed to stdout."""
    words = [str(word) for word in command]
    print("  $ " + " ".join(words), flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f"[demo] FAILED: {words[0]} {words[1]} ended with status {done.returncode}\n{done.stdout}")
    return done.stdout


def show_similarities(embeddings: np.ndarray[Any, Any]) -> None:
    similarity = embeddings @ embeddings.T
    print("       " + "".join(f"{column:>6}" for column in range(len(SENTENCES))))
    for row, sentence in enumerate(SENTENCES):
        print(f"  {row:>3}  " + "".join(f"{value:6.2f}" for value in similarity[row]) + f"   {sentence}")
    above = np.triu(similarity, 1)
    print("\n  nearest pairs")
    for flat in np.argsort(above, axis=None)[::-1][:5]:
        a, b = np.unravel_index(flat, above.shape)
        print(f"  {above[a, b]:.3f}  {SENTENCES[a]}\n         {SENTENCES[b]}")


def evaluate(extent: int | str, symbols: dict[str, int]) -> int:
    """A number of the report: given as such, or as an expression over the dynamic dimensions."""
    functions = {"floordiv": lambda a, b: a // b, "ceildiv": lambda a, b: -(-a // b), "mod": lambda a, b: a % b, "min": min, "max": max}
    return int(eval(extent, {"__builtins__": {}}, {**functions, **symbols})) if isinstance(extent, str) else extent


def show_ranks(report: dict[str, Any], symbols: dict[str, int]) -> None:
    """What each rank held and sent, from `tandem inspect --json`."""
    collectives = report["collectives"]
    sent_kib = sum(evaluate(use["bytes"], symbols) for use in collectives) / 1024
    kinds: dict[str, int] = {}
    for use in collectives:
        kinds[use["operation"]] = kinds.get(use["operation"], 0) + 1
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
    print(f"  collectives per step: {listed}")
    for rank in report["ranks"]:
        weights = evaluate(rank["weight_bytes"], symbols) / 2**20
        activations = evaluate(rank["activation_bytes"], symbols) / 2**20
        print(
            f"  rank {rank['rank']}: holds {weights:.1f} MiB of weights and {activations:.1f} MiB of activations, sends {sent_kib:.1f} KiB"
        )


def run_mesh(
    tandem: Path, work: Path, mesh: str, symbols: dict[str, int], expected: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], float]:
    name = mesh.replace("=", "")
    engine, outputs, timeline = work / f"minilm-{name}.tandem", work / f"out-{name}.safetensors", work / f"timeline-{name}.json"
    begin = time.monotonic()
    call(tandem, "build", work / "minilm.onnx", "-o", engine, "--mesh", mesh)
    print(f"  built in {time.monotonic() - begin:.1f} s, {engine.stat().st_size / 2**20:.0f} MiB", flush=True)
    call(tandem, "run", engine, "--inputs", work / "in.safetensors", "--outputs", outputs, "--trace", timeline)
    embeddings = load_file(outputs)["sentence_embedding"]
    if embeddings.shape != expected.shape:
        sys.exit(f"[demo] FAILED: embeddings of shape {embeddings.shape}, expected {expected.shape}")
    difference = float(np.abs(embeddings - expected).max())  # NaN stays NaN and fails below
    show_ranks(json.loads(call(tandem, "inspect", engine, "--json")), symbols)
    print(f"  timeline for https://ui.perfetto.dev: {timeline}")
    print(f"  largest difference to ONNX Runtime: {difference:.1e} (allowed {TOLERANCE:.0e})", flush=True)
    return embeddings, difference


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tandem", type=Path, default=Path("build/cpu/bin/tandem"))
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder for the model, the engines and the timelines")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    step("writing all-MiniLM-L6-v2 as an ONNX file")
    model = args.work / "minilm.onnx"
    model.write_bytes(make_model().SerializeToString())
    inputs = tokenize(SENTENCES)
    save_file(inputs, args.work / "in.safetensors")
    batch, sequence = inputs["input_ids"].shape
    print(f"  {model}: {model.stat().st_size / 2**20:.0f} MiB; {batch} sentences of up to {sequence} tokens")

    step("the reference: ONNX Runtime, and the checkpoint in NumPy float64 to be sure of the file")
    from reference import sentence_embeddings

    expected = onnx_runtime(model, inputs)
    doubt = float(np.abs(expected - sentence_embeddings(inputs["input_ids"], inputs["attention_mask"])).max())
    print(f"  they differ by {doubt:.1e}")
    if not doubt <= 1e-5:
        sys.exit("[demo] FAILED: the ONNX file is not the model of the checkpoint")

    differences = {}
    for mesh, meaning in MESHES.items():
        step(f"--mesh {mesh}, {meaning}")
        embeddings, differences[mesh] = run_mesh(args.tandem, args.work, mesh, {"batch": batch, "sequence": sequence}, expected)
        if mesh == "tp=2":
            show_similarities(embeddings)

    wrong = [mesh for mesh, difference in differences.items() if not difference <= TOLERANCE]
    if wrong:
        print(f"\n[demo] FAILED: {', '.join(wrong)} differ from ONNX Runtime by more than {TOLERANCE:.0e}")
        return 1
    print("\n[demo] passed: every embedding agrees with ONNX Runtime on " + ", ".join(MESHES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
