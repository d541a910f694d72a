"""Canonical checkpoints: `config.json` and `model.safetensors`, written and read without other libraries.

Owns: the shape of the example's configurations and the safetensors container (8-byte length, JSON header, data).
"""

import json
import pathlib
import struct

import torch

from model import Photon, Vanilla

TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.int64: "I64"}


def paper_config(vocabulary, chunks, dim, layers, heads, ffn, positions):
    """The `paper` dialect: every stack alike, concat then linear chunkers, R = 2, token feedback at the bottom."""
    if dim % chunks[0]:
        raise ValueError(f"width {dim} is not a multiple of the first chunk size {chunks[0]}")
    stack = {"layers": layers, "heads": heads, "kv_heads": heads, "head_dim": dim // heads, "ffn": ffn}
    levels = []
    for i, chunk in enumerate(chunks):
        chunker = {"kind": "linear", "norm": True, "bias": True} if i else {"kind": "concat"}
        decoder = stack | {"dim": dim, "feedback": "latent" if i else "token"}
        levels.append({"chunk_size": chunk, "dim": dim, "prefix": 2, "chunker": chunker, "encoder": stack,
                       "converter": {"bias": True}, "decoder": decoder})
    return {"model_type": "photon", "dialect": "paper", "vocab_size": vocabulary, "embed_dim": dim // chunks[0],
            "decoder_embed_dim": dim, "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "max_position_embeddings": positions, "levels": levels}


def vanilla_config(vocabulary, dim, layers, heads, ffn):
    return {"model_type": "vanilla", "vocab_size": vocabulary, "dim": dim, "layers": layers, "heads": heads,
            "head_dim": dim // heads, "ffn": ffn, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}


def build(config, dropout=0.0):
    return (Vanilla if config["model_type"] == "vanilla" else Photon)(config, dropout)


def write_tensors(path, tensors, metadata=None):
    """Writes a safetensors file; tensors in the order of their names."""
    header, at = ({"__metadata__": metadata} if metadata else {}), 0
    for name in sorted(tensors):
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            flat = tensors[name].detach().cpu().contiguous().flatten()
            raw = bytearray(flat.numel() * flat.element_size())
            torch.frombuffer(raw, dtype=flat.dtype).copy_(flat)
            out.write(raw)


def read_tensors(path):
    """Reads a safetensors file whole: name -> tensor."""
    data = bytearray(pathlib.Path(path).read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    kinds = {name: dtype for dtype, name in TYPES.items()}
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        raw = torch.frombuffer(data[begin:end], dtype=kinds[entry["dtype"]])
        tensors[name] = raw.reshape(entry["shape"])
    return tensors


def save(folder, model, dtype=torch.bfloat16):
    """Writes `config.json` and `model.safetensors`, weights rounded to `dtype`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config, indent=1) + "\n")
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})


def load(folder):
    """The model of a checkpoint, in f32, ready to evaluate. A missing or unexpected tensor is an error."""
    folder = pathlib.Path(folder)
    model = build(json.loads((folder / "config.json").read_text()))
    tensors = read_tensors(folder / "model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()
