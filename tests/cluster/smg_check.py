"""Two real `photonc serve` behind Shepherd Model Gateway on loopback: a cut stream says so, later ones are whole.

.deps/smg/bin/python tests/cluster/smg_check.py PHOTONC BUNDLE
"""

import argparse
import itertools
import os
import signal
import sys
import tempfile
import time

from processes import Checks, Processes, Stream, free_port, get, status, until

NEW_TOKENS = 1200


def words(number):
    """A prompt that begins like no other, so that the gateway spreads them."""
    return f"{number * 7919 % 997} {number} It is a truth universally acknowledged, that {number} men"


def main():
    parser = argparse.ArgumentParser()
    for name in ("photonc", "bundle"):
        parser.add_argument(name)
    given = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="photonc-smg-")
    check, since = Checks(), time.monotonic()
    ports, gateway = [free_port(), free_port()], free_port()
    urls, url = [f"http://127.0.0.1:{port}" for port in ports], f"http://127.0.0.1:{gateway}"
    with Processes(folder) as processes:

        def server(name, port):
            command = [
                given.photonc,
                "serve",
                given.bundle,
                "--served-model-name",
                "photon",
                "--backend",
                "cpu",
                "--run-ahead",
                "1",
                "--port",
                str(port),
                "--log-level",
                "warn",
            ]
            return processes.start(name, command)

        servers = [server(f"p{at}", port) for at, port in enumerate(ports)]
        until("the servers are ready", lambda: all(status(f"{one}/ready") == 200 for one in urls))
        smg = os.path.join(os.path.dirname(sys.executable), "smg")
        processes.start(
            "smg",
            [
                smg,
                "launch",
                "--host",
                "127.0.0.1",
                "--port",
                str(gateway),
                "--worker-urls",
                *urls,
                "--policy",
                "cache_aware",
                "--backend",
                "vllm",
                "--health-check-interval-secs",
                "1",
                "--cb-timeout-duration-secs",
                "2",
                "--prometheus-host",
                "127.0.0.1",
                "--prometheus-port",
                str(free_port()),
                "--log-level",
                "warn",
            ],
        )
        body = {"model": "photon", "prompt": words(0), "max_tokens": NEW_TOKENS, "ignore_eos": True, "seed": 5}

        def ask(more, path="completions"):
            return Stream(f"{url}/v1/{path}", body | more)

        until("the gateway answers", lambda: ask({"max_tokens": 1}).end().error is None)
        print(f"ready after {time.monotonic() - since:.0f} s", flush=True)
        alone = Stream(f"{urls[0]}/v1/completions", body).end()
        said = ask({}).end()
        check(
            "a stream is that of a server alone",
            said.text == alone.text and said.done and said.usage == alone.usage,
            said,
        )

        def made():
            return [
                sum(
                    float(line.split()[-1])
                    for line in get(f"{one}/metrics").splitlines()
                    if line.startswith("vllm:request_success_total")
                )
                for one in urls
            ]

        before = made()
        for number in range(1, 13):
            ask({"prompt": words(number), "max_tokens": 1}).end()
        check("both servers get work", all(now > then for now, then in zip(made(), before)), (before, made()))

        def running():
            return [
                sum(
                    float(line.split()[-1])
                    for line in get(f"{one}/metrics").splitlines()
                    if line.startswith("vllm:num_requests_running")
                )
                for one in urls
            ]

        leaving = ask({})
        until("it has begun", lambda: leaving.said.chunks > 0)
        leaving.leave()
        until("a client that goes ends its request in the server", lambda: sum(running()) == 0)
        check("a client that goes ends its request in the server", True)

        streams = [ask({"prompt": words(number)}) for number in range(20, 26)]
        until("every stream has begun", lambda: all(stream.said.chunks for stream in streams))
        check("both have streams", all(running()), running())
        servers[1].send_signal(signal.SIGKILL)
        ends = [stream.end() for stream in streams]
        cut = [said for said in ends if said.finish is None]
        check("some streams are cut", 0 < len(cut) < len(ends), ends)
        check("a cut stream ends with an error", all(said.error is not None for said in cut), cut)
        check("the others are whole", all(said.done and said.error is None for said in ends if said.finish), ends)
        said = [ask({"prompt": words(number), "max_tokens": 3}).end() for number in range(30, 40)]
        check("requests afterwards", all(one.finish == "length" for one in said), said)

        servers[1] = server("p1-again", ports[1])
        until("it is back", lambda: status(f"{urls[1]}/ready") == 200)
        # A server that answers again has no work before the gateway's health checks and circuit breaker have seen it.
        numbers = itertools.count(100)

        def has_work_again():
            ask({"prompt": words(next(numbers)), "max_tokens": 1}).end()
            return made()[1] > 0

        until("the gateway sends it work", has_work_again)
        stream = [ask({"prompt": words(number)}) for number in range(40, 44)]
        until("every stream has begun", lambda: all(one.said.chunks for one in stream))
        servers[0].send_signal(signal.SIGTERM)
        ends = [one.end() for one in stream]
        check("a drain loses no stream", all(said.done and said.finish == "length" for said in ends), ends)
        check("and ends well", servers[0].wait(60) == 0, servers[0].returncode)
        said = [ask({"prompt": words(number), "max_tokens": 3}).end() for number in range(50, 56)]
        check("requests afterwards", all(one.finish == "length" for one in said), said)
    print(f"all in {time.monotonic() - since:.0f} s")
    return check.exit_code()


if __name__ == "__main__":
    sys.exit(main())
