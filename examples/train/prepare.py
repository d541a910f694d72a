"""Turns documents into what training reads: a BPE tokenizer and two token streams.

Owns: the vocabulary, the order of the documents and the files' layout. Documents are joined by `<|endoftext|>`.

    python3 examples/train/prepare.py --corpus DIR --out DATA [--vocab 4000]

DATA/tokenizer.json, DATA/{train,heldout}.u16.gz (little-endian token ids) and DATA/data.json (sizes and hashes).
"""

import argparse
import array
import gzip
import hashlib
import json
import pathlib
import re

import tokenizers

END = "<|endoftext|>"


def train_tokenizer(texts, vocabulary):
    """Byte-level BPE: any text round-trips, and no id is unknown."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def encode(bpe, texts):
    """One stream of ids; every document ends with `<|endoftext|>`."""
    end = bpe.token_to_id(END)
    ids = array.array("H")
    for text in texts:
        ids.extend(bpe.encode(text).ids)
        ids.append(end)
    return ids


def words(texts):
    """The distinct words of the texts, as the word statistics count them."""
    return sorted({word for text in texts for word in re.findall(r"[A-Za-z]+(?:'[A-Za-z]+)*", text)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--vocab", type=int, default=4000)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = {part: [p.read_text() for p in sorted((args.corpus / part).glob("*.txt"))] for part in ("train", "heldout")}
    bpe = train_tokenizer(parts["train"], args.vocab)
    bpe.save(str(args.out / "tokenizer.json"))
    record = {"vocab_size": bpe.get_vocab_size(), "end": bpe.token_to_id(END)}
    for part, texts in parts.items():
        ids = encode(bpe, texts).tobytes()
        size = sum(len(text.encode()) for text in texts)
        record[part] = {"documents": len(texts), "bytes": size, "tokens": len(ids) // 2,
                        "blake2b": hashlib.blake2b(ids, digest_size=16).hexdigest()}
        (args.out / f"{part}.u16.gz").write_bytes(gzip.compress(ids, 9, mtime=0))
    (args.out / "words.txt.gz").write_bytes(gzip.compress("\n".join(words(parts["train"])).encode(), 9, mtime=0))
    (args.out / "data.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
