"""Makes the tokenizers of the tests from `text.txt`, the opening of Jane Austen's *Northanger Abbey* (public domain).

    python3 tests/speaking/make.py        needs the `tokenizers` library, 0.23.3

byte_level.json         byte-level BPE of 512 entries, with tokens that mark messages and the end
byte_fallback.json      BPE of 512 entries over words marked with U+2581; characters it lacks become tokens of single bytes
"""

import json
import pathlib

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
SPECIAL = ["<|end|>", "<|start|>", "<|stop|>"]


def byte_level(lines):
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=512, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )
    return bpe


def byte_fallback(lines):
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=["<unk>", "<s>", "</s>"] + bytes_, show_progress=False)
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = [word for line in lines for word in line.split()]
    bpe.train_from_iterator(words, trainer)
    return bpe


def write(name, tokenizer):
    described = json.loads(tokenizer.to_str())
    # The trainer takes whatever must be in the vocabulary as special; tokens of single bytes are text.
    described["added_tokens"] = [token for token in described["added_tokens"] if not token["content"].startswith("<0x")]
    (HERE / name).write_text(json.dumps(described, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    lines = (HERE / "text.txt").read_text().splitlines()
    write("byte_level.json", byte_level(lines))
    write("byte_fallback.json", byte_fallback(lines))


if __name__ == "__main__":
    main()
