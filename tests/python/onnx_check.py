"""Checks exported models that `cargo test --test onnx` left on disk.

    onnx_check.py FOLDER [--tensorrt]

Every folder below FOLDER with a `case.json` is a case: `model.onnx` with its weights, and `run{i}.safetensors` with
tensors `input NAME` and `output NAME` as the reference computed them. A case passes if `onnx.checker` accepts the
model in full (with shape inference) and ONNX Runtime's results agree: integers exactly, floats within `tolerance` of
the output's largest element (or of 1). Where the tolerance is that of f16, a draw may fall on the other side of a
boundary and what follows from it differ: then rows of the batch whose `ids` differ are left out, at most half of all
rows of a case.
A case without runs is for TensorRT alone.
`--tensorrt` also parses and builds each model with TensorRT-RTX for SM89, which needs no GPU (nothing is run).
Prints a line per case and a summary; exit code 0 if all passed, 1 otherwise, 2 if there is nothing to check.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from safetensors.numpy import load_file

# Models that TensorRT-RTX 1.7.1 parses and then fails to build with an internal error, each with what they have in common.
# One that builds after all is a failure too, so that this list says what is. docs/targets.md tells users.
ODD_HEADS = "narrow attention with heads of 10 to 14 components in unrolled windows, not padded in portable models"
SHARED_INPUT = "codes of several maps of one vector in unrolled windows"
UNBUILT = {
    **{f"f16.lopsided.{graph}": ODD_HEADS
       for graph in ("decode", "decode_logits", "expand", "expand_logits", "reencode", "score")},
    **{f"{scheme}.paper.{graph}": SHARED_INPUT for scheme in ("int8", "int4", "fp8") for graph in ("coarse", "score")},
}
NO_ENGINE = "TensorRT-RTX builds no engine"
DRAWS_EXACT = 1e-3  # tolerances below it leave draws as they are
DYNAMIC_SIZES = (1, 2, 4)  # of a symbol in a TensorRT profile: least, best, most


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # By default weights in few bits are multiplied by activations of 8 bits, with errors of 2e-2.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def difference(found, expected):
    """Largest difference, relative to the largest element (or to 1); infinite where shapes, types or integers differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if not np.issubdtype(found.dtype, np.floating):
        return 0.0 if np.array_equal(found, expected) else float("inf")
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    worst = np.max(np.abs(found - expected), initial=0.0)
    return float("inf") if np.isnan(worst) else float(worst / np.max(np.abs(expected), initial=1.0))


def check_runs(folder, case):
    """Problems and the largest difference of all runs in ONNX Runtime."""
    model = session(folder / "model.onnx")
    names = [output.name for output in model.get_outputs()]
    problems, worst, drawn = [], 0.0, np.zeros(0, dtype=bool)
    for run in range(case["runs"]):
        tensors = load_file(folder / f"run{run}.safetensors")
        inputs = {name[6:]: value for name, value in tensors.items() if name.startswith("input ")}
        expected = {name[7:]: value for name, value in tensors.items() if name.startswith("output ")}
        if set(names) != set(expected):
            problems.append(f"run {run}: outputs {sorted(names)}, expected {sorted(expected)}")
            continue
        results = dict(zip(names, model.run(names, inputs)))
        if case["tolerance"] >= DRAWS_EXACT and "ids" in results:
            agree = np.array([np.array_equal(a, b) for a, b in zip(results["ids"], expected["ids"])])
            drawn = np.concatenate([drawn, agree])
            results = {name: found[agree] for name, found in results.items()}
            expected = {name: found[agree] for name, found in expected.items()}
        for name, found in results.items():
            gap = difference(found, expected[name])
            worst = max(worst, gap)
            if gap > case["tolerance"]:
                problems.append(f"run {run}: `{name}` differs by {gap:.3g}, tolerance {case['tolerance']:.0e}")
    if 2 * np.count_nonzero(drawn) < len(drawn):
        problems.append(f"ids of {np.count_nonzero(~drawn)} of {len(drawn)} rows differ")
    return problems, worst


def check_model(path):
    onnx.checker.check_model(str(path), full_check=True)
    read = {name for node in onnx.load(str(path), load_external_data=False).graph.node for name in node.input}
    graph = onnx.load(str(path), load_external_data=False).graph
    return [f"input `{value.name}` is read by no node" for value in graph.input if value.name not in read]


def build_tensorrt(path):
    """Problems of parsing and building an engine for SM89."""
    import tensorrt_rtx_bindings as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        return [f"TensorRT-RTX: {parser.get_error(i).desc()}" for i in range(parser.num_errors)]
    graph = onnx.load(str(path), load_external_data=False).graph
    parsed = {network.get_input(i).name for i in range(network.num_inputs)}
    dropped = [value.name for value in graph.input if value.name not in parsed]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    for value in graph.input:
        if value.name in parsed:
            profile.set_shape(value.name, *(sizes(value, size) for size in DYNAMIC_SIZES))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    problems = [f"TensorRT-RTX drops input `{name}`" for name in dropped]
    return problems + ([] if engine else [NO_ENGINE])


def known_or_not(name, problems):
    """Problems of a build, of which the known one is shown, but none."""
    if name not in UNBUILT:
        return problems
    if problems == [NO_ENGINE]:
        print(f"known: {name} is not built: {UNBUILT[name]}")
        return []
    return problems or [f"TensorRT-RTX builds `{name}` now: take it from UNBUILT"]


def sizes(value, symbol):
    names = {"batch": symbol, "meta": symbol, "capacity": symbol}
    dims = value.type.tensor_type.shape.dim
    # The dimension texts are sums of products of these names and numbers, which Python reads as they are.
    return [eval(dim.dim_param, {}, names) if dim.dim_param else dim.dim_value for dim in dims]


def check(folder, with_tensorrt):
    case = json.loads((folder / "case.json").read_text())
    path = folder / "model.onnx"
    try:
        problems = check_model(path)
        differing, worst = check_runs(folder, case) if case["runs"] else ([], 0.0)
        problems += differing
        if with_tensorrt:
            problems += known_or_not(folder.name, build_tensorrt(path))
    except Exception as error:  # Every kind of refusal is a failed case.
        return [f"{type(error).__name__}: {error}".splitlines()[0]], float("inf")
    return problems, worst


def main(arguments):
    folders = [Path(argument) for argument in arguments if not argument.startswith("--")]
    if len(folders) != 1 or not folders[0].is_dir():
        print(__doc__.splitlines()[2].strip(), file=sys.stderr)
        return 2
    cases = sorted(path.parent for path in folders[0].rglob("case.json"))
    failed = 0
    for folder in cases:
        problems, worst = check(folder, "--tensorrt" in arguments)
        failed += bool(problems)
        tolerance = json.loads((folder / "case.json").read_text())["tolerance"]
        name = folder.relative_to(folders[0])
        print(f"{'FAILED' if problems else 'ok'} {name} (largest difference {worst:.2g}, tolerance {tolerance:.2g})")
        for problem in problems:
            print(f"    {problem}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0 if cases else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
