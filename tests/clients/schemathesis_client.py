"""`schemathesis` against /openapi.json: requests that the schema allows and such that it does not, by every operation. No answer
is an error of the server, each has a status, type and shape that the schema names, and what the schema forbids is refused.

usage: schemathesis_client.py URL [MODEL] [--max-time SECONDS] [--seed NUMBER]
"""

import argparse
import importlib.metadata
import pathlib
import subprocess
import sys
import tempfile

# Not `positive_data_acceptance`: what JSON Schema cannot say, a server may still refuse, such as ids that the model lacks.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "unsupported_method,negative_data_rejection"
)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("model", nargs="?", help="taken like the other clients; the schema needs none")
    parser.add_argument("--max-time", default="25")
    parser.add_argument("--seed", default="1")
    arguments = parser.parse_args()
    program = pathlib.Path(sys.executable).parent / "schemathesis"
    with tempfile.TemporaryDirectory() as folder:
        command = [
            program, "run", f"{arguments.url}/openapi.json", "--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", "12",
            "--max-time", arguments.max_time, "--seed", arguments.seed, "--workers", "2", "--request-timeout", "60",
            "--suppress-health-check", "all", "--generation-database", "none", "--no-color",
            # These end the server's work, or change its model.
            "--exclude-path-regex", "^/admin/",
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-12000:]}\n{done.stderr[-2000:]}")
    cases = next(line.strip() for line in done.stdout.splitlines() if "generated," in line)
    print("schemathesis", importlib.metadata.version("schemathesis"), cases)


main()
