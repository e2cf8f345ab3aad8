#!/usr/bin/env python3
"""BERT-large and ResNet-50 in PyTorch, with random weights: what bench/gpu_models.py makes engines of, and their peer, torch.compile with
CUDA graphs.

gpu_models_torch.py    reads names from stdin, a line each ("BERT-large 384 f16 batch 1"); answers each with a line of JSON
"""

import json
import sys

import torch
import torch.nn.functional as F
from torch import nn

LAYERS, WIDTH, HEADS, INNER, WORDS, TOKENS = 24, 1024, 16, 4096, 30522, 384


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, 1e-12), nn.LayerNorm(WIDTH, 1e-12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q, k, v = (part.view(b, t, HEADS, WIDTH // HEADS).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, WIDTH)
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    """The encoder with its embeddings and two numbers per token, as for questions and answers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(WORDS, WIDTH), nn.Embedding(512, WIDTH), nn.Embedding(2, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH, 1e-12), nn.Linear(WIDTH, 2)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]] + self.kinds.weight[0])
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def parts_of(name: str) -> tuple[str, int]:
    """Model and batch of a row."""
    model, *_, batch = name.split()
    return model, int(batch)


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The module in f16 on the GPU and an input; the same for one name in each process."""
    model, batch = parts_of(name)
    torch.manual_seed(0)
    if model == "BERT-large":
        module = Bert()
        for weight in module.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)
        given = torch.randint(0, WORDS, (batch, TOKENS))
    else:
        from torchvision.models import resnet50

        module = resnet50(weights=None)
        given = torch.randn(batch, 3, 224, 224).half()
    return module.half().cuda().eval(), given.cuda()


def placed(name: str) -> tuple[nn.Module, torch.Tensor]:
    """As make(), images with their channels last, as PyTorch likes them best."""
    module, given = make(name)
    if parts_of(name)[0] == "ResNet-50":
        module, given = module.to(memory_format=torch.channels_last), given.to(memory_format=torch.channels_last)
    return module, given


def microseconds(call) -> float:
    """Of one call, many in a row."""
    for _ in range(5):
        call()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    calls = min(200, max(10, int(300 / begin.elapsed_time(end))))
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / calls * 1e3


def main() -> None:
    compiled = {}
    with torch.inference_mode():
        for line in sys.stdin:
            name = line.strip()
            try:
                if name not in compiled:
                    compiled.clear()
                    torch._dynamo.reset()
                    torch.cuda.empty_cache()
                    module, given = placed(name)
                    compiled[name] = torch.compile(module, mode="reduce-overhead"), given
                module, given = compiled[name]
                answer = {"name": name, "us": microseconds(lambda module=module, given=given: module(given))}
            except Exception as error:  # told to the caller, who goes on with the next row
                answer = {"name": name, "failed": f"{type(error).__name__}: {error}"[:300]}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
