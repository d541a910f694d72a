"""Two real `photonc serve` behind NVIDIA Dynamo on loopback: whatever happens to an engine, no text has a seam.

    .deps/dynamo/bin/python tests/cluster/dynamo_check.py PHOTONC BUNDLE PACKAGE

PACKAGE is what `photonc package BUNDLE --for dynamo -o PACKAGE` wrote. With PHOTONC_FULL=1 once more over etcd.
"""

import argparse
import base64
import json
import os
import signal
import sys
import tempfile
import time

from processes import Checks, Processes, Stream, ask, free_port, get, status, until

PROMPT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of"
NEW_TOKENS = 1200
PROTOCOLS = ("recgen", "hiergen")


def cases(model):
    """Every protocol, greedy and sampled."""
    ways = (
        {"temperature": 0},
        {"temperature": 0.9, "seed": 11},
        {"temperature": 1.1, "top_p": 0.9, "seed": 12},
        {"temperature": 1, "top_k": 20, "seed": 13},
    )
    for protocol in PROTOCOLS:
        for more in ways:
            note = {"annotations": [f"protocol:{protocol}"]}
            yield {
                "model": model,
                "prompt": PROMPT,
                "max_tokens": NEW_TOKENS,
                "ignore_eos": True,
                "nvext": note,
                **more,
            }


class Cluster:
    """Frontends and their workers. The last frontend that was started is asked."""

    def __init__(self, given, processes):
        self.given, self.processes, self.workers, self.engines = given, processes, {}, {}
        self.url = None
        self.python, self.package = sys.executable, given.package

    def start_frontend(self, *more, name="frontend"):
        port = free_port()
        command = [
            self.python,
            "-m",
            "dynamo.frontend",
            "--http-host",
            "127.0.0.1",
            "--http-port",
            str(port),
            "--migration-limit",
            "3",
            *more,
        ]
        self.url = f"http://127.0.0.1:{port}"
        return self.processes.start(name, command)

    def start_worker(self, name, **environment):
        port = free_port()
        engine = [
            self.given.photonc,
            "serve",
            self.given.bundle,
            "--backend",
            "cpu",
            "--run-ahead",
            "1",
            "--keep-alive",
            "1",
            "--log-level",
            "warn",
        ]
        command = [
            self.python,
            f"{self.package}/photonc_worker.py",
            "--card",
            f"{self.package}/card",
            "--hang-timeout",
            "3",
            "--",
            *engine,
        ]
        self.workers[name] = (self.processes.start(name, command, DYN_SYSTEM_PORT=str(port), **environment), port)

    def wait_for(self, *names):
        for name in names:
            line = until(
                f"{name} is up",
                lambda name=name: next(
                    (line for line in self.processes.log(name).splitlines() if line.startswith('{"worker"')), None
                )
                or self.workers[name][0].poll() is not None,
            )
            assert line is not True, f"{name} ended"
            self.engines[name] = json.loads(line)
        alive = sum(worker.poll() is None for worker, _ in self.workers.values())
        until("the frontend sees them", lambda: self.instances() == alive)
        until("it has the model", lambda: '"id"' in get(f"{self.url}/v1/models"))
        # Seen is not yet routed to.
        time.sleep(1)

    def instances(self):
        try:
            health = json.loads(get(f"{self.url}/health"))
        except OSError:
            return 0
        return sum(instance.get("endpoint") == "generate" for instance in health.get("instances", []))

    def completions(self, body):
        return Stream(f"{self.url}/v1/completions", body)

    def counted(self, name, text=None):
        lines = (text or get(f"{self.url}/metrics")).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((name + "{", name + " ")))

    def migrations(self):
        return self.counted("dynamo_frontend_model_migration_total")

    def engine_counts(self, worker, name):
        return self.counted(name, get(f"{self.engines[worker]['engine']}/metrics"))

    def running(self, worker):
        return self.engine_counts(worker, "vllm:num_requests_running")


def disturbed(cluster, check, references, victim, claim, disturb):
    """Streams under way while `disturb` happens to the victim are, to their last byte, those of undisturbed runs."""
    before = cluster.migrations()
    streams = [cluster.completions(body) for body, _ in references]
    until("every stream has begun", lambda: all(stream.said.chunks >= 2 for stream in streams))
    busy = cluster.running(victim)
    disturb()
    for (body, reference), stream in zip(references, streams):
        said = stream.end()
        which = (
            f"{body['nvext']['annotations'][0]}, {'greedy' if not body['temperature'] else 'seed ' + str(body['seed'])}"
        )
        same = (said.text, said.finish, said.usage) == (reference.text, reference.finish, reference.usage)
        check(
            f"{claim}: {which} is what it was",
            same and said.error is None and said.done,
            f"{said}\nexpected {reference}",
        )
    check(f"{claim}: its engine had work", busy > 0)
    return cluster.migrations() - before


def checked(cluster, check):
    model = json.loads(get(f"{cluster.url}/v1/models"))["data"][0]["id"]
    engine = cluster.engines["w1"]["engine"]
    own = json.loads(get(f"{engine}/v1/models"))["data"][0]["id"]
    references = []
    for body in cases(model):
        said = cluster.completions(body).end()
        check(
            f"a stream of {body['nvext']['annotations'][0]}, {body.get('seed', 'greedy')}",
            said.finish == "length" and not said.error,
            said,
        )
        references.append((body, said))
        plain = {name: body[name] for name in body if name != "nvext"} | {
            "model": own,
            "protocol": body["nvext"]["annotations"][0].split(":")[1],
        }
        alone = Stream(f"{engine}/v1/completions", plain).end()
        check("  as photonc alone has it", alone.text == said.text and alone.usage == said.usage, f"{alone}\n{said}")
    chat = Stream(
        f"{cluster.url}/v1/chat/completions",
        {
            "model": model,
            "max_tokens": 40,
            "temperature": 0,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": PROMPT}],
        },
    ).end()
    check("a chat", chat.finish == "length" and chat.text and not chat.error, chat)
    stop = references[0][1].text[60:64]
    said = cluster.completions(references[0][0] | {"stop": [stop], "ignore_eos": False}).end()
    check("a stop string", said.text == references[0][1].text.split(stop)[0] and said.finish == "stop", said)
    said = cluster.completions(references[0][0] | {"logprobs": 2, "max_tokens": 5}).end()
    told = [choice["logprobs"] for choice in said.whole if choice.get("logprobs")]
    check("log-probabilities", sum(len(one["token_logprobs"]) for one in told) == 5, said)
    said = cluster.completions(references[0][0] | {"n": 3}).end()
    check("what is not done is refused", said.error is not None, said)

    leaving = cluster.completions(references[0][0])
    until("it has begun", lambda: leaving.said.chunks > 0)
    until("an engine runs it", lambda: sum(map(cluster.running, cluster.workers)) > 0)
    leaving.leave()
    until("a client that goes ends its request in the engine", lambda: sum(map(cluster.running, cluster.workers)) == 0)
    check("a client that goes ends its request in the engine", True)
    text = get(f"http://127.0.0.1:{cluster.workers['w1'][1]}/metrics")
    check(
        "a worker shows the engine's counters and its own",
        cluster.counted("vllm:generation_tokens_total", text) > 0 and "dynamo_component_total_blocks" in text,
        text[:2000],
    )
    return references


def failures(cluster, check, references):
    workers = ["w1", "w2"]

    def replace(name):
        """Another worker comes before the next failure."""
        workers.remove(name)
        workers.append(f"w{int(max(workers)[1:]) + 1}")
        cluster.start_worker(workers[-1])
        cluster.wait_for(workers[-1])

    for protocol in PROTOCOLS:
        own = [(body, said) for body, said in references if body["nvext"]["annotations"] == [f"protocol:{protocol}"]]
        for claim, sign in (("kill -9 of an engine", signal.SIGKILL), ("an engine that hangs", signal.SIGSTOP)):
            name = workers[0]
            process, pid = cluster.workers[name][0], cluster.engines[name]["engine_pid"]
            moved = disturbed(cluster, check, own, name, claim, lambda pid=pid, sign=sign: os.kill(pid, sign))
            check(f"{claim}: its streams moved", moved >= 1, moved)
            check(f"{claim}: its worker ends", process.wait(20) == 70, process.returncode)
            said = cluster.completions(own[0][0]).end()
            check(f"{claim}: requests afterwards", said.text == own[0][1].text, said)
            replace(name)
        if protocol == PROTOCOLS[0]:
            name, claim = workers[0], "kill -9 of a worker"
            process, pid = cluster.workers[name][0], cluster.engines[name]["engine_pid"]
            moved = disturbed(cluster, check, own, name, claim, process.kill)
            check(f"{claim}: its streams moved", moved >= 1, moved)
            until(f"{claim}: its engine ends", lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
            replace(name)
        name = workers[0]
        process, pid = cluster.workers[name][0], cluster.engines[name]["engine_pid"]
        claim = "a worker that is told to end"
        disturbed(cluster, check, own, name, claim, lambda process=process: process.send_signal(signal.SIGTERM))
        check(f"{claim}: it ends well", process.wait(60) == 0, process.returncode)
        check(f"{claim}: so does its engine", not os.path.exists(f"/proc/{pid}"))
        replace(name)
    left = os.listdir(os.environ["DYN_FILE_KV"] + "-photonc")
    check("no prompt is remembered", not left, left)


def prefix_routing(given, check, folder):
    """Requests that begin alike go to one worker: blocks are whole meta-contexts."""
    os.environ["DYN_FILE_KV"] += "-kv"
    with Processes(folder) as processes:
        cluster = Cluster(given, processes)
        cluster.start_frontend("--router-mode", "kv", "--no-router-kv-events")
        cluster.start_worker("k1")
        cluster.start_worker("k2")
        cluster.wait_for("k1", "k2")
        model = json.loads(get(f"{cluster.url}/v1/models"))["data"][0]["id"]

        def made():
            return {name: cluster.engine_counts(name, "vllm:prompt_tokens_total") for name in cluster.workers}

        homes = set()
        for topic in range(8):
            ids = [(topic * 97 + place * 13) % 3000 + 300 for place in range(96)]
            own = set()
            for turn in range(3):
                before = made()
                body = {"model": model, "prompt": ids + [7 * turn + 5] * (32 * turn), "max_tokens": 2, "temperature": 0}
                cluster.completions(body).end()
                now = made()
                own |= {name for name in now if now[name] > before[name]}
            check(f"prompts that begin alike go to one worker: {own}", len(own) == 1, own)
            homes |= own
        check("others go elsewhere", len(homes) == 2, homes)


def over_etcd(given, check, folder):
    """Two frontends and three workers of three addresses, which know each other through etcd alone."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    os.environ |= {"DYN_DISCOVERY_BACKEND": "etcd", "ETCD_ENDPOINTS": client}
    with Processes(folder) as processes:
        etcd = os.path.join(os.path.dirname(sys.executable), "etcd")
        processes.start(
            "etcd",
            [
                etcd,
                "--data-dir",
                f"{folder}/etcd",
                "--log-level",
                "warn",
                "--listen-client-urls",
                client,
                "--advertise-client-urls",
                client,
                "--listen-peer-urls",
                peer,
                "--initial-cluster",
                f"default={peer}",
                "--initial-advertise-peer-urls",
                peer,
            ],
        )
        until("etcd is there", lambda: status(f"{client}/health") == 200)
        cluster = Cluster(given, processes)
        first = cluster.start_frontend("--router-mode", "round-robin", name="frontend-1")
        before = cluster.url
        cluster.start_frontend("--router-mode", "round-robin", name="frontend-2")
        for at in (1, 2, 3):
            cluster.start_worker(
                f"e{at}", DYN_TCP_RPC_HOST=f"127.0.0.{at}", DYN_TCP_RESPONSE_STREAM_HOST=f"127.0.0.{at}"
            )
        cluster.wait_for("e1", "e2", "e3")
        model = json.loads(get(f"{cluster.url}/v1/models"))["data"][0]["id"]
        references = [(body, cluster.completions(body).end()) for body in cases(model) if body["temperature"]][:3]
        said = Stream(f"{before}/v1/completions", references[0][0]).end()
        check("etcd: both frontends say the same", said.text == references[0][1].text, said)
        first.send_signal(signal.SIGKILL)
        pid = cluster.engines["e1"]["engine_pid"]
        moved = disturbed(
            cluster, check, references, "e1", "etcd: kill -9 of an engine", lambda: os.kill(pid, signal.SIGKILL)
        )
        check("etcd: its streams moved", moved >= 1, moved)
        keys = json.loads(
            ask(f"{client}/v3/kv/range", {"key": b64("photonc/prompts/"), "range_end": b64("photonc/prompts0")})
        )
        check("etcd: no prompt is remembered", not keys.get("kvs"), keys)


def b64(text):
    return base64.b64encode(text.encode()).decode()


def main():
    parser = argparse.ArgumentParser()
    for name in ("photonc", "bundle", "package"):
        parser.add_argument(name)
    given = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="photonc-dynamo-")
    os.environ |= {
        "DYN_DISCOVERY_BACKEND": "file",
        "DYN_FILE_KV": f"{folder}/kv",
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_EVENT_PLANE": "zmq",
        "HF_HUB_OFFLINE": "1",
        "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
        "DYN_TCP_RPC_HOST": "127.0.0.1",
        "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1",
        "DYN_SYSTEM_HOST": "127.0.0.1",
        "DYN_EVENT_PLANE_HOST": "127.0.0.1",
        "DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    check, since = Checks(), time.monotonic()
    with Processes(folder) as processes:
        cluster = Cluster(given, processes)
        os.makedirs(os.environ["DYN_FILE_KV"])
        cluster.start_frontend("--router-mode", "round-robin")
        cluster.start_worker("w1")
        cluster.start_worker("w2")
        cluster.wait_for("w1", "w2")
        print(f"ready after {time.monotonic() - since:.0f} s", flush=True)
        failures(cluster, check, checked(cluster, check))
    prefix_routing(given, check, folder)
    if os.environ.get("PHOTONC_FULL"):
        over_etcd(given, check, folder)
    print(f"all in {time.monotonic() - since:.0f} s")
    return check.exit_code()


if __name__ == "__main__":
    sys.exit(main())
