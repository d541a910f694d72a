#!/usr/bin/env python3
"""Tokens/s of RecGen on the CPU: photonc's own kernels, tract and ONNX Runtime, and the same model in eager PyTorch.

usage: bench_cpu.py PHOTONC WORKDIR [--ort-lib PATH] [--python PYTHON] [--preset paper-30m] [--regime 64/256]
                    [--run-ahead 8] [--threads 1 2] [--rounds 5] [--batch 1]

PHOTONC is a release build with the features `ort` and `tract`. PYTHON has PyTorch and NumPy; by default it is the one that runs this.
Every contender first draws the greedy tokens of one prompt, which must be the same. Then the rounds: in each, every
contender runs in turn in a process of its own, generates once to warm up and three times for the clock. Printed are
tokens/s, medians over rounds, the peak memory of a process, and the median of the rounds' ratios to tract, by the clock and
by processor time (loading left out). On a machine that does other things only ratios mean something, and those of processor
time most, at one thread. tract computes on one thread. Idle threads sleep, PyTorch's too.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time

WARM_UP, REPETITIONS = 1, 3


class Stack:
    """A Transformer stack with KV caches: x [N, S, D] -> [N, S, D]."""

    def __init__(self, tensors, prefix, size, config):
        self.names, self.tensors, self.size = prefix, tensors, size
        self.eps, self.theta = config["rms_norm_eps"], config["rope_theta"]

    def weight(self, name):
        return self.tensors[f"{self.names}.{name}.weight"]

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.weight(name), self.eps)

    def rotate(self, x, start):
        half = x.shape[-1] // 2
        inverse = self.theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(start, start + x.shape[2], dtype=torch.float64)[:, None] * inverse
        cos, sin = angle.cos().float(), angle.sin().float()
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def __call__(self, x, cache):
        """`cache` is a list, empty at first; several positions at once only into an empty one."""
        n, s, _ = x.shape
        start = cache[0][0].shape[2] if cache else 0
        assert start == 0 or s == 1
        for layer in range(self.size["layers"]):
            at = f"layers.{layer}"
            normed = self.norm(x, f"{at}.input_layernorm")
            q, k, v = (
                F.linear(normed, self.weight(f"{at}.self_attn.{name}_proj")).view(n, s, -1, self.size["head_dim"]).transpose(1, 2)
                for name in "qkv"
            )
            q, k = self.rotate(q, start), self.rotate(k, start)
            if start:
                k, v = (torch.cat((old, new), 2) for old, new in zip(cache[layer], (k, v)))
                cache[layer] = (k, v)
            else:
                cache.append((k, v))
            grouped = self.size["heads"] != self.size["kv_heads"]
            out = F.scaled_dot_product_attention(q, k, v, is_causal=s > 1, enable_gqa=grouped)
            x = x + F.linear(out.transpose(1, 2).reshape(n, s, -1), self.weight(f"{at}.self_attn.o_proj"))
            normed = self.norm(x, f"{at}.post_attention_layernorm")
            gate, up = (F.linear(normed, self.weight(f"{at}.mlp.{name}_proj")) for name in ("gate", "up"))
            x = x + F.linear(F.silu(gate) * up, self.weight(f"{at}.mlp.down_proj"))
        return self.norm(x, "norm")


class Recgen:
    """A two-level checkpoint of the `paper` dialect, as one would write its generation in PyTorch."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = read_tensors(folder / "model.safetensors")
        self.specs = self.config["levels"]
        kinds = [(spec["chunker"]["kind"], spec["decoder"]["feedback"]) for spec in self.specs]
        if kinds != [("concat", "token"), ("linear", "latent")]:
            raise SystemExit(f"{folder}: the PyTorch side knows two levels of the paper's form, found {kinds}")
        self.stacks = [
            tuple(Stack(self.tensors, f"levels.{i}.{name}", spec[name], self.config) for name in ("encoder", "decoder"))
            for i, spec in enumerate(self.specs)
        ]

    def weight(self, name):
        return self.tensors[name]

    def chunk(self, x):
        """Level 2's chunker: [B, C_2 n, D_1] -> [B, n, D_2]."""
        x = x.reshape(x.shape[0], -1, self.specs[1]["chunk_size"] * x.shape[-1])
        at = "levels.1.chunker"
        if self.specs[1]["chunker"]["norm"]:
            x = F.rms_norm(x, x.shape[-1:], self.weight(f"{at}.norm.weight"), self.config["rms_norm_eps"])
        return F.linear(x, self.weight(f"{at}.proj.weight"), self.tensors.get(f"{at}.proj.bias"))

    def window(self, level, condition, feed):
        """Decodes the windows of conditions [N, D_l]; `feed` takes an element [N, W] and gives what is fed back."""
        at, spec, cache = f"levels.{level}.converter", self.specs[level], []
        prefix = F.linear(condition, self.weight(f"{at}.weight"), self.tensors.get(f"{at}.bias"))
        fed = prefix.view(len(condition), spec["prefix"], -1)
        for element in range(spec["chunk_size"]):
            out = self.stacks[level][1](fed, cache)[:, -1]
            back = feed(out)
            if element + 1 < spec["chunk_size"]:
                fed = back[:, None]

    def latents(self, condition):
        """Level 2's windows: [B, D_2] -> [B, C_2, D_1]."""
        found = []
        self.window(1, condition, lambda out: found.append(out) or out)
        return torch.stack(found, 1)

    def tokens(self, condition):
        """Level 1's windows: [N, D_1] -> ids [N, C_1], the most probable."""
        found = []

        def draw(out):
            found.append(F.linear(out, self.weight("lm_head.weight")).argmax(-1))
            return F.embedding(found[-1], self.weight("decoder_embed.weight"))

        self.window(0, condition, draw)
        return torch.stack(found, 1)

    def generate(self, prompt, new_tokens, run_ahead):
        """prompt [B, T], whole meta-contexts, more than one -> ids [B, new_tokens], a multiple of the meta-context."""
        rows, cache = len(prompt), []
        x = F.embedding(prompt, self.weight("embed.weight"))
        x = x.reshape(rows, -1, self.specs[0]["dim"])
        unit = self.chunk(self.stacks[0][0](x, []))
        states = self.stacks[1][0](unit, cache)
        carry, state = self.latents(states[:, -2])[:, -1:], states[:, -1]
        metas, drawn = new_tokens // (self.specs[0]["chunk_size"] * self.specs[1]["chunk_size"]), []
        while metas:
            ahead, burst = min(run_ahead, metas), []
            for _ in range(ahead):
                burst.append(self.latents(state))
                state = self.stacks[1][0](self.chunk(burst[-1]), cache)[:, -1]
            conditions = torch.cat((carry, *burst), 1)
            carry = conditions[:, -1:]
            drawn.append(self.tokens(conditions[:, :-1].flatten(0, 1)).view(rows, -1))
            metas -= ahead
        return torch.cat(drawn, 1)


def read_tensors(path):
    """The f32 tensors of a safetensors file."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            assert entry["dtype"] == "F32", f"{name} is {entry['dtype']}, expected F32"
            tensors[name] = torch.frombuffer(data[begin:end], dtype=torch.float32).view(entry["shape"])
    return tensors


def pytorch(job):
    """Runs one job of this script's own in PyTorch and prints its result."""
    torch.set_num_threads(job["threads"])
    model = Recgen(pathlib.Path(job["model"]))
    prompt = torch.tensor(job["prompts"])
    seconds = []
    with torch.inference_mode():
        for _ in range(WARM_UP + REPETITIONS):
            start, processor = time.perf_counter(), time.process_time()
            tokens = model.generate(prompt, job["new_tokens"], job["run_ahead"])
            seconds.append((time.perf_counter() - start, time.process_time() - processor))
    status = pathlib.Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    clock, processor = (tokens.numel() / statistics.median(times) for times in zip(*seconds[WARM_UP:]))
    print(json.dumps({"tokens": tokens[0].tolist(), "tokens_per_second": clock, "tokens_per_processor_second": processor,
                      "peak_memory_bytes": peak}))


def run(command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed with exit code {done.returncode}:\n{done.stderr}")
    return done.stdout


class Contender:
    """One engine with a number of threads."""

    def __init__(self, engine, threads, options, model, bundle):
        self.engine, self.threads, self.options, self.model, self.bundle = engine, threads, options, model, bundle
        self.name = f"{engine}, {threads} thread{'s' if threads > 1 else ''}"

    def photonc(self, command, *arguments):
        backend = ["--backend", self.engine, "--run-ahead", self.options.run_ahead]
        if self.engine in ("cpu", "ort"):
            backend += ["--threads", self.threads]
        if self.engine == "ort":
            backend += ["--ort-lib", self.options.ort_lib] if self.options.ort_lib else []
        output = run([self.options.photonc, command, self.bundle, *backend, "--json", "--quiet", *arguments])
        return json.loads(output)

    def torch(self, prompts, new_tokens):
        job = {"threads": self.threads, "model": str(self.model), "prompts": prompts, "new_tokens": new_tokens,
               "run_ahead": 1 if self.engine.endswith("stepwise") else self.options.run_ahead}
        command = [self.options.python, __file__, "--job", json.dumps(job)]
        return json.loads(run(command, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}))

    def tokens(self, prompt):
        if self.engine.startswith("PyTorch"):
            return self.torch([prompt], 64)["tokens"]
        ids = ",".join(map(str, prompt))
        return self.photonc("generate", "--prompt-ids", ids, "--greedy", "--ignore-eos", "-n", 64)["tokens"]

    def bench(self, prompts, repetitions):
        """What `photonc bench` reports, and the processor time it took."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = self.photonc("bench", "--regime", self.options.regime, "--repetitions", repetitions, "--batch", len(prompts))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return report, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def measure(self, prompts):
        """Tokens/s by the clock and by processor time, and peak memory in bytes."""
        if self.engine.startswith("PyTorch"):
            report = self.torch(prompts, self.options.new_tokens)
            processor = report["tokens_per_processor_second"]
        else:
            # Two numbers of repetitions differ by generations alone: loading drops out.
            (_, short), (report, long) = self.bench(prompts, 1), self.bench(prompts, 1 + REPETITIONS)
            processor = self.options.new_tokens * len(prompts) * REPETITIONS / (long - short)
        return report["tokens_per_second"], processor, report["peak_memory_bytes"]


def contenders(options, model, bundle):
    found = [Contender("tract", 1, options, model, bundle)]
    for threads in options.threads:
        found += [Contender(engine, threads, options, model, bundle) for engine in ("cpu", "ort")]
    if subprocess.run([options.python, "-c", "import torch, numpy"], capture_output=True).returncode != 0:
        print(f"PyTorch is left out: {options.python} lacks `torch` or `numpy`; name another with --python", file=sys.stderr)
        return found
    for engine in ("PyTorch", "PyTorch stepwise"):
        found += [Contender(engine, threads, options, model, bundle) for threads in options.threads]
    return found


def main():
    options = arguments()
    work = pathlib.Path(options.work)
    model, bundle = work / options.preset, work / f"{options.preset}.bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    run([options.photonc, "synth", "--preset", options.preset, "--dtype", "f32", "-o", model, "--force", "--quiet"])
    run([options.photonc, "export", model, "-o", bundle, "--quiet"])
    prompt_tokens, options.new_tokens = (int(part) for part in options.regime.split("/"))
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    prompts = [[(17 * (row + 1) + 29 * at) % vocabulary for at in range(prompt_tokens)] for row in range(options.batch)]

    sides = contenders(options, model, bundle)
    expected = sides[0].tokens(prompts[0])
    for side in sides[1:]:
        if side.tokens(prompts[0]) != expected:
            raise SystemExit(f"{side.name} draws other tokens than {sides[0].name}")
    print(f"{len(sides)} contenders draw the same {len(expected)} tokens; {os.cpu_count()} cores, {options.preset}, "
          f"{options.regime}, run-ahead {options.run_ahead}, batch {options.batch}")
    rates, peaks = {side: [] for side in sides}, {side: 0 for side in sides}
    for number in range(options.rounds):
        for side in sides:
            *rate, peak = side.measure(prompts)
            rates[side].append(rate)
            peaks[side] = max(peaks[side], peak)
        figures = (f"{side.name} {rates[side][-1][0]:.0f} ({rates[side][-1][1]:.0f})" for side in sides)
        print(f"round {number + 1}, tokens/s by the clock (by processor time): {', '.join(figures)}", flush=True)
    print(f"{'':<28}{'peak MiB':>9}{'tokens/s':>10}{'of tract':>22}{'by processor':>14}{'of tract':>22}")
    for side in sides:
        print(f"{side.name:<28}{peaks[side] / 2**20:>9.0f}", end="")
        for clock, width in ((0, 10), (1, 14)):
            found, tract = ([rate[clock] for rate in rates[one]] for one in (side, sides[0]))
            ratios = [rate / base for rate, base in zip(found, tract)]
            print(f"{statistics.median(found):>{width}.0f}{statistics.median(ratios):>8.2f} "
                  f"({min(ratios):.2f} to {max(ratios):.2f})", end="")
        print()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photonc")
    parser.add_argument("work")
    parser.add_argument("--ort-lib")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--preset", default="paper-30m")
    parser.add_argument("--regime", default="64/256")
    parser.add_argument("--run-ahead", type=int, default=8)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        import torch
        import torch.nn.functional as F

        pytorch(json.loads(sys.argv[2]))
    else:
        main()
