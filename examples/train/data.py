"""The token streams and the text of their tokens, as `prepare.py` wrote them.

Owns: reading DATA, crops, and decoding of byte-level BPE (so that training needs PyTorch only).
"""

import gzip
import json
import pathlib
import re

import torch


def byte_of_letter():
    """Byte-level BPE writes each byte as one printable letter: the inverse of that table."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in plain}
    rest = (byte for byte in range(256) if byte not in plain)
    return letters | {chr(256 + i): byte for i, byte in enumerate(rest)}


class Data:
    """`train` and `heldout`: ids [n]; `lengths`: bytes of each token's text (a special token has none)."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.record = json.loads((folder / "data.json").read_text())
        self.vocab_size, self.end = self.record["vocab_size"], self.record["end"]
        self.train, self.heldout = (self.stream(folder / f"{part}.u16.gz") for part in ("train", "heldout"))
        table, letters = json.loads((folder / "tokenizer.json").read_text()), byte_of_letter()
        special = {entry["content"] for entry in table["added_tokens"]}
        self.text = [b""] * self.vocab_size
        for token, index in table["model"]["vocab"].items():
            self.text[index] = b"" if token in special else bytes(letters[letter] for letter in token)
        self.lengths = torch.tensor([len(text) for text in self.text])
        self.words = set(gzip.decompress((folder / "words.txt.gz").read_bytes()).decode().split("\n"))

    @staticmethod
    def stream(path):
        raw = bytearray(gzip.decompress(path.read_bytes()))
        return torch.frombuffer(raw, dtype=torch.uint16).long()

    def decode(self, ids):
        return b"".join(self.text[i] for i in ids).decode("utf-8", "replace")


def crops(stream, rows, length, generator):
    """Random crops [rows, length] of a stream."""
    starts = torch.randint(len(stream) - length, (rows, 1), generator=generator).to(stream.device)
    return stream[starts + torch.arange(length, device=stream.device)]


def words(text):
    return re.findall(r"[A-Za-z]+(?:'[A-Za-z]+)*", text)
