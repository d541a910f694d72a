"""The Python package behind Ray Serve, as examples/cluster/ray has it: streams are whole, one whose replica is killed is seen to
be broken off, and others and later ones are not.

.deps/ray/bin/python tests/cluster/ray_serve.py BUNDLE      (needs the package photonc in that environment)
"""

import argparse
import http.client
import json
import os
import pathlib
import signal
import sys
import threading

from processes import PATIENCE, Checks, free_port, until

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples/cluster/ray"))
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": os.pathsep.join(sys.path)}

ASKED = {"prompt": "It is a truth universally acknowledged", "max_tokens": 1200, "seed": 5, "ignore_eos": True}


class Streamed(threading.Thread):
    """A stream on its way; what came of it grows while it comes."""

    def __init__(self, port, body):
        super().__init__(daemon=True)
        self.port, self.body = port, body
        self.status = self.replica = self.finish = self.error = None
        self.tokens, self.done = [], False
        self.start()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/", json.dumps(self.body))
            answer = connection.getresponse()
            self.status, self.replica = answer.status, answer.getheader("x-replica")
            if self.status != 200:
                self.error = answer.read().decode()
                return
            for line in lines(answer):
                if line.startswith(b"data: [DONE]"):
                    self.done = True
                elif line.startswith(b"data: {"):
                    told = json.loads(line[6:])
                    self.tokens += told["token_ids"]
                    self.finish = told["finish_reason"] or self.finish
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = repr(error)
        finally:
            connection.close()

    def end(self):
        self.join(PATIENCE)
        assert not self.is_alive(), f"{self.body}: it does not end"
        return self

    def is_whole(self):
        return self.done and self.error is None and self.finish == "length"

    def __repr__(self):
        return f"{self.status} from {self.replica}: {len(self.tokens)} tokens, {self.finish}, {self.done}, {self.error}"


def lines(answer):
    """Lines of a body. Reading them from `answer` itself would take a body that breaks off for one that ends."""
    rest = b""
    while piece := answer.read1(1 << 16):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    given = parser.parse_args()
    import photon_app
    import ray
    from ray import serve

    check, port = Checks(), free_port()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        # Bursts of one meta-context, so that streams last.
        serve.run(photon_app.app({"bundle": os.path.abspath(given.bundle), "backend": "cpu", "run_ahead": "1"}))
        checked(check, port)
    finally:
        serve.shutdown()
        ray.shutdown()
    return check.exit_code()


def checked(check, port):
    def ask(more):
        return Streamed(port, ASKED | more)

    def replicas():
        return {one.end().replica for one in [ask({"max_tokens": 1}) for _ in range(8)]}

    alone = ask({}).end()
    check("a stream is whole", alone.is_whole() and len(alone.tokens) == ASKED["max_tokens"], alone)
    refused = ask({"top_p": 2}).end()
    check("what cannot be met is refused by name", refused.status == 400 and "top-p" in refused.error, refused)
    unknown = ask({"beams": 2}).end()
    check("an unknown parameter is refused by name", unknown.status == 400 and "beams" in unknown.error, unknown)
    before = until("both replicas answer", lambda: len(found := replicas()) == 2 and found)

    def spread():
        """Streams of which each replica has some."""
        streams = [ask({}) for _ in range(6)]
        until("every stream has begun", lambda: all(one.tokens or one.error for one in streams))
        return len({one.replica for one in streams}) == 2 and streams

    streams = until("both have streams", spread)
    killed = streams[0].replica
    os.kill(int(killed), signal.SIGKILL)
    ends = [one.end() for one in streams]
    cut = [one for one in ends if one.replica == killed]
    check("streams of the killed replica are cut", cut and not any(one.done for one in cut), ends)
    check("and break off: none looks as if it had ended", all(one.error for one in cut), cut)
    same = all(alone.tokens[: len(one.tokens)] == one.tokens for one in cut)
    check("what they had is what they would have had", same, cut)
    others = [one for one in ends if one.replica != killed]
    whole = all(one.is_whole() and one.tokens == alone.tokens for one in others)
    check("the others are whole, with the same tokens", others and whole, others)
    later = [ask({"max_tokens": 8}).end() for _ in range(4)]
    check("requests afterwards are whole", all(one.is_whole() for one in later), later)
    again = until("there are two again", lambda: len(found := replicas() - {killed}) == 2 and found)
    check("one of them is new", again - before, (before, again))


if __name__ == "__main__":
    sys.exit(main())
