"""Search by meaning, in the documents of this project, with all-MiniLM-L6-v2 on two ranks: embedding_search.py [WORDS…] draws search.svg"""

import re
import runpy
import sys
from html import escape
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import tandem

root = Path(__file__).resolve().parents[2]
query = " ".join(sys.argv[1:]) or "what happens when a process is killed?"
text = " ".join((root / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("failure", "groups", "parallelism"))
sentences = [query] + [" ".join(s.split()) for s in re.split(r"\||(?<=[.:;?])\s|\n[-#]|\n\n", text) if 30 < len(s) < 300]

minilm = runpy.run_path(str(root / "examples" / "minilm" / "make_onnx.py"))  # the model of `make demo`
tokenizer = Tokenizer.from_file(str(minilm["model_folder"]() / "tokenizer.json"))
tokenizer.enable_padding()
tokens = tokenizer.encode_batch(sentences)
ids, mask = (np.array([getattr(t, name) for t in tokens], np.int64) for name in ("ids", "attention_mask"))
with tandem.load(tandem.Network.from_onnx(minilm["make_model"]().SerializeToString()).build(mesh={"tp": 2})) as model:
    vectors = model(input_ids=ids, attention_mask=mask, token_type_ids=0 * ids)["sentence_embedding"]  # of length one

near = vectors @ vectors[0]
print("\n".join(f"{near[i]:.2f}  {sentences[i]}" for i in np.argsort(near)[:-7:-1]))  # the query itself first

across = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[0][:, 0]  # along which they differ most
places = zip(500 + 450 * across / np.max(abs(across)), 500 - 450 * near, sentences, strict=True)  # the nearer, the higher
dots = [f'<circle cx="{x:.0f}" cy="{y:.0f}" r="5" fill="steelblue"><title>{escape(s)}</title></circle>' for x, y, s in places]
Path("search.svg").write_text("\n".join(['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 600">', *dots, "</svg>"]))
