#!/usr/bin/env python3
"""Makes `seeds/`: small sound inputs for every fuzz target, from the examples of the repository and bundles of them.

fuzz/make_seeds.py PHOTONC"""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDS = ROOT / "fuzz/seeds"
MOST_BYTES = 200 << 10

GENERATION = {
    "eos_token_id": [1, 2],
    "do_sample": True,
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "max_new_tokens": 8,
    "repetition_penalty": 1.1,
    "num_beams": 4,
}
NAMED = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "additional_special_tokens": ["<x>"]}
TEMPLATE = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}\n{% endfor %}"

PROMPTS = [
    '{"prompt_ids": [0, 1, 2, 3], "seed": 1, "max_new_tokens": 4, "id": 1e400}',
    '{"prompt": "A text", "id": "\\u0041"}',
    '{"messages": [{"role": "user", "content": "Why?"}], "tools": [{"type": "function"}]}',
    "not JSON",
]

BODIES = {
    "completions": (
        "/v1/completions",
        {"prompt": ["a", "b"], "max_tokens": 4, "logprobs": 2, "stop": ["x"], "logit_bias": {"1": -5}},
    ),
    "completions_ids": (
        "/v1/completions",
        {"prompt": [[1, 2], [3]], "echo": True, "stream": True, "best_of": 1, "seed": -1},
    ),
    "chat": (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
            "tools": [{"type": "function"}],
            "tool_choice": "auto",
            "response_format": {"type": "text"},
            "stream_options": {"include_usage": True},
            "top_p": 0.9,
            "top_k": -1,
            "min_p": 0.1,
        },
    ),
    "responses": (
        "/v1/responses",
        {
            "input": [{"type": "message", "role": "user", "content": "a"}],
            "store": False,
            "text": {"format": {"type": "text"}},
        },
    ),
    "generate": (
        "/v1/generate",
        {"token_ids": [1, 2], "n": 2, "protocol": "recgen", "presence_penalty": 1, "frequency_penalty": -1},
    ),
    "trajectories": ("/v1/trajectories", {"prompt": "a", "max_tokens": 8}),
    "expand": ("/v1/trajectories/1/expand", {"from": 0, "to": 2, "sample": 1, "seed": 7, "temperature": 0}),
    "tokenize": ("/tokenize", {"messages": [{"role": "user", "content": "a"}], "return_token_strs": True}),
    "detokenize": ("/detokenize", {"tokens": [1, 2, 3]}),
    "load": ("/admin/load", {"model": "a", "path": "b"}),
    "v2_infer": (
        "/v2/models/1/infer",
        {
            "id": "1",
            "inputs": [{"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": [[1, 2]]}],
            "outputs": [{"name": "text_output", "parameters": {"binary_data": False}}],
            "parameters": {"max_tokens": 4, "best_of": 1},
        },
    ),
    "v2_generate": ("/v2/models/1/generate", {"text_input": "a", "seed": 1, "parameters": {"stop": ["b"]}}),
}


def put(target, name, content):
    path = SEEDS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def files(parts):
    """Several files as one input."""
    return b"\n".join(b"=== " + name.encode() + b"\n" + content for name, content in parts.items())


def header(path):
    """The header of a safetensors file, without its length: with its padding, which offsets count."""
    data = path.read_bytes()
    return data[8 : 8 + struct.unpack("<Q", data[:8])[0]]


def minified(path):
    return json.dumps(json.loads(path.read_text()), separators=(",", ":")).encode()


def shallow(model):
    """The golden checkpoint with the first layer of every stack alone."""
    model.mkdir()
    golden = ROOT / "examples/paper-golden"
    config = json.loads((golden / "config.json").read_text())
    for level in config["levels"]:
        level["encoder"]["layers"] = level["decoder"]["layers"] = 1
    (model / "config.json").write_text(json.dumps(config, separators=(",", ":")))
    tensors = json.loads(header(golden / "model.safetensors"))
    data = (golden / "model.safetensors").read_bytes()[8 + len(header(golden / "model.safetensors")) :]
    kept, own = {}, b""
    for name, tensor in tensors.items():
        if name != "__metadata__" and ".layers.1." not in name:
            start, end = tensor["data_offsets"]
            kept[name] = {**tensor, "data_offsets": [len(own), len(own) + end - start]}
            own += data[start:end]
    text = json.dumps(kept, separators=(",", ":")).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + own)


def bundle(photonc, work):
    """A bundle of a small checkpoint, and the ONNX model of one of its graphs."""
    model = work / "model"
    shallow(model)
    (model / "generation_config.json").write_text(json.dumps(GENERATION))
    (model / "tokenizer_config.json").write_text(json.dumps(NAMED))
    (model / "chat_template.jinja").write_text(TEMPLATE)
    run = lambda *arguments: subprocess.run(
        [photonc, *arguments, "-q"], cwd=work, check=True, stdout=subprocess.DEVNULL
    )
    run("export", "model", "-o", "bundle", "--protocol", "recgen", "--target", "cpu")
    run("export", "model", "-o", "onnx", "--protocol", "recgen", "--target", "portable")
    parts = {}
    for path in sorted((work / "bundle").rglob("*")):
        name = str(path.relative_to(work / "bundle"))
        if name == "photon.json":
            # Its own hash is made anew.
            manifest = json.loads(path.read_text())
            del manifest["blake3"]
            parts[name] = json.dumps(manifest, separators=(",", ":")).encode()
        elif path.is_file():
            parts[name] = header(path) if name.endswith(".safetensors") else path.read_bytes()
    put("bundle", "golden", files(parts))
    put("manifest", "golden", parts["photon.json"])
    put("onnx", "expand_prepare", (work / "onnx/onnx/expand_prepare.portable.onnx").read_bytes())
    put("graph", "expand_step.pho", parts["graphs/expand_step.pho"])
    put(
        "checkpoint",
        "paper",
        files({"config.json": parts["config.json"], "model.safetensors": header(model / "model.safetensors")}),
    )


def main():
    photonc = str(Path(sys.argv[1]).resolve())
    shutil.rmtree(SEEDS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        bundle(photonc, Path(work))
    for name in ("photon-experiment", "scala_short"):
        golden = ROOT / "tests/golden" / name
        config = next(golden / file for file in ("config.json", "model_config.json") if (golden / file).exists())
        shorter = json.dumps(json.loads(header(golden / "model.safetensors")), separators=(",", ":")).encode()
        parts = {config.name: minified(config), "model.safetensors": shorter}
        put("checkpoint", name, files(parts))
    for path in sorted((ROOT / "crates/photonc-compiler/src/model/dialects").glob("p*.toml")):
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        put("weight_map", path.name, "\n".join(lines) + "\n")
    for path in sorted((ROOT / "tests/cases/text").glob("*.pho")):
        put("graph", path.name, path.read_bytes())
    for name in ("chatml", "counting", "python_repr", "recursive_schema", "thinking_ns", "whitespace"):
        put("chat_template", name, (ROOT / f"tests/chat/templates/{name}.jinja").read_bytes())
    put("tokenizer", "byte_level", minified(ROOT / "tests/speaking/byte_level.json"))
    put("generation_config", "all", json.dumps(GENERATION))
    put("prompts", "lines", "\n".join(PROMPTS) + "\n")
    for name, (path, body) in BODIES.items():
        put("request_body", name, f"{path}\n{json.dumps(body)}")
    sizes = {path: path.stat().st_size for path in SEEDS.rglob("*") if path.is_file()}
    for target in sorted(SEEDS.iterdir()):
        print(f"{target.name}: {sum(sizes[path] for path in sizes if target in path.parents)} bytes")
    if sum(sizes.values()) > MOST_BYTES:
        sys.exit(f"{sum(sizes.values())} bytes of seeds, expected at most {MOST_BYTES}")


if __name__ == "__main__":
    main()
