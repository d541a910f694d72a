"""Sound inputs that are changed: checkpoints and bundles, made once by the program itself; copies of them that share
what is not changed; and hashes that fit what was changed."""

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

from blake3 import blake3
from values import dump

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
IDS = ",".join(map(str, range(16)))
# `generate` on a bundle: quick, and the same tokens in every run.
GENERATE = ["--prompt-ids", IDS, "-n", "4", "--greedy", "-q"]

TEMPLATE = """{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content | trim }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TOKENIZER_CONFIG = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}
GENERATION = {
    "eos_token_id": [253, 255],
    "do_sample": True,
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "max_new_tokens": 8,
    "repetition_penalty": 1.1,
    "transformers_version": "4.51.0",
}


def byte_tokenizer():
    """Every byte a token, and four special ones: as byte-level BPE without merges spells it."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    characters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    specials = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 252 + at,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for at, text in enumerate(specials)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # Bytes that UTF-8 has not give way to the special tokens.
            "vocab": {characters[byte]: byte for byte in range(252)},
            "merges": [],
        },
    }


def content_of(content):
    """Bytes of what may be text, or be made only where it is needed."""
    content = content() if callable(content) else content
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")


def put(path, content):
    """Writes a file of a copy; what shares its contents keeps them."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content_of(content))


def copy(source, target):
    """A copy that shares its files' contents."""
    for folder, _, files in os.walk(source):
        there = target / Path(folder).relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        for name in files:
            os.link(Path(folder) / name, there / name)


def header_of(data):
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header, data):
    text = header if isinstance(header, bytes) else dump(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Fixtures:
    """Sound folders by name: `m` a checkpoint with text, `b` its bundle, `q` the same with quantized weights, `shards`
    the checkpoint in two files; the others are goldens."""

    def __init__(self, photonc, folder):
        self.photonc, self.folder = photonc, folder
        self._call("synth", "--preset", "tiny", "-o", "m", "-q")
        model = folder / "m"
        put(model / "tokenizer.json", json.dumps(byte_tokenizer()))
        put(model / "chat_template.jinja", TEMPLATE)
        put(model / "tokenizer_config.json", json.dumps(TOKENIZER_CONFIG))
        put(model / "generation_config.json", json.dumps(GENERATION))
        self._call("export", "m", "-o", "b", "-q")
        self._call(
            "export", "m", "-o", "q", "-q", "--quant", "level1.decoder=int8,level2.decoder=fp8", "--target", "cuda"
        )
        for name in ("paper", "photon-experiment", "scala_short", "scala_moe", "scala_moe_fp8", "scala_moe_nvfp4"):
            (folder / name).mkdir()
            for file in ("config.json", "model_config.json", "model.safetensors"):
                if (GOLDEN / name / file).exists():
                    shutil.copy(GOLDEN / name / file, folder / name / file)
        self._shards()

    def _call(self, *arguments):
        subprocess.run([self.photonc, *arguments], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def _shards(self):
        header, data = header_of((self.folder / "m/model.safetensors").read_bytes())
        header.pop("__metadata__", None)
        names = sorted(header)
        weight_map = {}
        target = self.folder / "shards"
        target.mkdir()
        for at, part in enumerate([names[: len(names) // 2], names[len(names) // 2 :]]):
            shard, own, file = {}, b"", f"model-{at + 1:05}-of-00002.safetensors"
            for name in part:
                start, end = header[name]["data_offsets"]
                shard[name] = {**header[name], "data_offsets": [len(own), len(own) + end - start]}
                own += data[start:end]
                weight_map[name] = file
            put(target / file, with_header(shard, own))
        index = {"metadata": {"total_size": len(data)}, "weight_map": weight_map}
        put(target / "model.safetensors.index.json", json.dumps(index))
        shutil.copy(self.folder / "m/config.json", target / "config.json")

    def json(self, name):
        """A JSON file of a fixture."""
        return json.loads((self.folder / name).read_text())

    def bytes(self, name):
        return (self.folder / name).read_bytes()

    def manifest(self, bundle="b"):
        """The manifest without its hash."""
        manifest = self.json(f"{bundle}/photon.json")
        manifest.pop("blake3")
        return manifest


def sealed(manifest):
    """The text of a manifest with its own hash."""
    body = dump(manifest)
    body = body[:-1] + ",\n" if body.endswith("}") else body
    return body + f'  "blake3": "{blake3(body.encode("utf-8", "surrogatepass")).hexdigest()}"\n}}\n'


def records(value):
    """Every record of a file in a manifest."""
    if isinstance(value, dict):
        if {"file", "bytes", "blake3"} <= value.keys():
            yield value
        for item in value.values():
            yield from records(item)
    elif isinstance(value, list):
        for item in value:
            yield from records(item)


def rehashed(bundle, manifest, changes):
    """Writes changed files of a bundle, and a manifest that knows them."""
    for name, content in changes.items():
        put(bundle / name, content)
        for record in records(manifest):
            if record["file"] == name:
                record["bytes"], record["blake3"] = len(content), blake3(content).hexdigest()
    put(bundle / "photon.json", sealed(manifest))
