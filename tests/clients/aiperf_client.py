"""NVIDIA's `aiperf`, unmodified: a short load with streams, whose counts and latencies are all there.

usage: aiperf_client.py URL MODEL TOKENIZER
"""

import importlib.metadata
import json
import pathlib
import subprocess
import sys
import tempfile

REQUESTS, NEW_TOKENS = 12, 48


def main():
    url, model, tokenizer = sys.argv[1:4]
    program = pathlib.Path(sys.executable).parent / "aiperf"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            program, "profile", "--model", model, "--url", url, "--endpoint-type", "completions", "--streaming",
            "--tokenizer", tokenizer, "--use-server-token-count", "--concurrency", "4", "--request-count", str(REQUESTS),
            "--synthetic-input-tokens-mean", "48", "--synthetic-input-tokens-stddev", "0", "--output-tokens-mean", str(NEW_TOKENS),
            "--extra-inputs", "ignore_eos:true", "--random-seed", "1", "--artifact-dir", folder, "--ui", "none",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}")
        found = json.loads((pathlib.Path(folder) / "profile_export_aiperf.json").read_text())
    assert found["request_count"]["avg"] == REQUESTS, found["request_count"]
    assert not found.get("error_summary"), found["error_summary"]
    assert found["output_sequence_length"]["avg"] == NEW_TOKENS, found["output_sequence_length"]
    for name in ("time_to_first_token", "inter_token_latency", "request_latency", "output_token_throughput"):
        assert found[name]["avg"] > 0, (name, found.get(name))
    print("aiperf", importlib.metadata.version("aiperf"), f"{found['output_token_throughput']['avg']:.0f} tokens/s")


main()
