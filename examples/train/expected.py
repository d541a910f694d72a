"""What the trained model writes, by its own forward: for the test that photonc writes the same.

    python3 examples/train/expected.py --model examples/english --text FILE

FILE is held-out text; its first 256 tokens are the prompt. Writes expected.safetensors beside the model: the prompt, 256
greedy tokens of both protocols, and the logits of some of them.
"""

import argparse
import pathlib

import torch
from tokenizers import Tokenizer

import checkpoint
import generate

PROMPT = NEW = 256
# Logits of every so-many-th token: all of them would be 8 MB.
EVERY = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    args = parser.parse_args()
    model = checkpoint.load(args.model)
    ids = Tokenizer.from_file(str(args.model / "tokenizer.json")).encode(args.text.read_text()).ids
    prompt = torch.tensor([ids[:PROMPT]])
    tensors = {"prompt": prompt[0].to(torch.int32)}
    for name, protocol in {"recgen": generate.recgen, "hiergen": generate.hiergen}.items():
        found = protocol(model, prompt, NEW // model.meta)
        tensors[f"{name}_tokens"] = found["tokens"][0].to(torch.int32)
        tensors[f"{name}_logits"] = found["logits"][0, ::EVERY].float()
    checkpoint.write_tensors(args.model / "expected.safetensors", tensors)


if __name__ == "__main__":
    main()
