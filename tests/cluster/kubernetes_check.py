"""The manifests of examples/cluster/kubernetes: valid against Kubernetes' own schemas, of one piece, and right about the server
that they start: its options, its probes, and the metrics that it is scaled by.

.deps/kubernetes/bin/python tests/cluster/kubernetes_check.py PHOTONC BUNDLE NODE_PACKAGES
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml
from processes import Checks, Processes, free_port, get, status, until

FOLDER = pathlib.Path(__file__).parents[2] / "examples/cluster/kubernetes"
NO_RESOURCES = {"kustomization.yaml", "prometheus-adapter.yaml"}
# prometheus-operator's own resources have no schema among Kubernetes'.
OPERATOR = """
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
new ServiceMonitor(JSON.parse(process.argv[1])).validate();
"""


def refusal(resource):
    """Why a resource is none of Kubernetes'; empty where it is one."""
    try:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return f"{type(error).__name__}: {error}"[:400]
    return ""


def monitor(check, resource, packages):
    """The resource that prometheus-operator reads, by its own schema."""
    if not shutil.which("node") or not (packages / "node_modules/@kubernetes-models").is_dir():
        print("SKIPPED servicemonitor.yaml is valid: needs node and @kubernetes-models/prometheus-operator", flush=True)
        return

    def said(one):
        command = ["node", "--input-type=module", "-e", OPERATOR, json.dumps(one)]
        done = subprocess.run(command, cwd=packages, capture_output=True, text=True)
        return done.stderr if done.returncode else ""

    check("servicemonitor.yaml is valid", not said(resource), said(resource))
    wrong = resource | {"spec": {"endpoints": [{"port": 1}]}}
    check("a wrong ServiceMonitor is refused", "must have required property selector" in said(wrong), said(wrong))


def valid(check, resources, packages):
    for name, resource in resources.items():
        if name == "servicemonitor.yaml":
            monitor(check, resource, packages)
        else:
            check(f"{name} is valid", not refusal(resource), refusal(resource))
    wrong = json.loads(json.dumps(resources["deployment.yaml"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["wait"] = 5
    check("a wrong Deployment is refused", "wait" in refusal(wrong), refusal(wrong))


def of_one_piece(check, resources):
    """What names another resource names one that is there."""
    deployment, service = resources["deployment.yaml"], resources["service.yaml"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for name in ("deployment.yaml", "pdb.yaml"):
        found = resources[name]["spec"]["selector"]["matchLabels"]
        check(f"{name} selects the pods", found == labels, found)
    check("service.yaml selects the pods", service["spec"]["selector"] == labels, service)
    monitored = resources["servicemonitor.yaml"]["spec"]
    found = (monitored["selector"]["matchLabels"], {one["port"] for one in monitored["endpoints"]})
    expected = (service["metadata"]["labels"], {one["name"] for one in service["spec"]["ports"]})
    check("servicemonitor.yaml selects the service", found == expected, found)
    target = resources["hpa.yaml"]["spec"]["scaleTargetRef"]
    check("hpa.yaml scales the deployment", target["name"] == deployment["metadata"]["name"], target)
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    check("kustomization.yaml lists them all", sorted(listed) == sorted(resources), listed)


def safe(check, pod):
    container = pod["containers"][0]
    own, shared = container["securityContext"], pod["securityContext"]
    check("it is not root", shared["runAsNonRoot"] and shared["runAsUser"] > 0, shared)
    closed = own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    check("it has no rights and writes nowhere else", closed and own["capabilities"] == {"drop": ["ALL"]}, own)
    arguments = container["args"]
    drain = float(arguments[arguments.index("--shutdown-timeout") + 1])
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod["terminationGracePeriodSeconds"]
    check("it may drain before it is killed", grace >= pause + drain + 5, (grace, pause, drain))


def right_about_the_server(check, resources, photonc, bundle):
    """The server starts with the arguments of the deployment, answers its probes, and counts what it is scaled by."""
    container = resources["deployment.yaml"]["spec"]["template"]["spec"]["containers"][0]
    folder, port = tempfile.mkdtemp(prefix="photonc-kubernetes-"), free_port()
    key = pathlib.Path(folder) / "keys"
    key.write_text("key-of-the-tests\n")
    here = {"/models/english": bundle, "/keys/keys": str(key), "0.0.0.0": "127.0.0.1", "8000": str(port)}
    arguments = [here.get(one, one) for one in container["args"]]
    check("the paths and the port are the volumes' and the container's", len(set(here) & set(container["args"])) == 4)
    check("its port is the container's", container["ports"][0]["containerPort"] == 8000, container["ports"])
    url = f"http://127.0.0.1:{port}"
    with Processes(folder) as processes:
        server = processes.start("server", [photonc, "serve", *arguments], XDG_CACHE_HOME=folder)
        probes = [container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")]
        until("it listens", lambda: status(f"{url}/version") == 200 or server.poll() is not None)
        check("it starts", server.poll() is None, processes.log("server"))
        if server.poll() is None:
            until("it is ready", lambda: status(url + probes[1]) == 200)
            for path in probes:
                check(f"the probe {path} is answered without a key", status(url + path) == 200, status(url + path))
            counted(check, resources["hpa.yaml"], get(f"{url}/metrics"))
            server.send_signal(signal.SIGTERM)
            check("it ends well", server.wait(60) == 0, server.returncode)


def counted(check, autoscaler, metrics):
    """The metrics of the autoscaler are those of the server by the adapter's rules."""
    rule = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"][0]
    series = re.search(r'__name__=~"([^"]+)"', rule["seriesQuery"])[1].split("|")
    exposed = set(re.findall(r"^([\w:]+)\{", metrics, re.MULTILINE))
    check("the server counts what the adapter reads", set(series) <= exposed, (series, sorted(exposed)))
    pattern, name = rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1")
    given = {re.sub(pattern, name, one) for one in series}
    asked = {one["pods"]["metric"]["name"] for one in autoscaler["spec"]["metrics"]}
    check("the autoscaler asks for what the adapter gives", asked == given, (asked, given))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("photonc")
    parser.add_argument("bundle")
    parser.add_argument("packages", type=pathlib.Path)
    given = parser.parse_args()
    names = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name not in NO_RESOURCES)
    resources = {name: yaml.safe_load((FOLDER / name).read_text()) for name in names}
    check = Checks()
    valid(check, resources, given.packages)
    of_one_piece(check, resources)
    safe(check, resources["deployment.yaml"]["spec"]["template"]["spec"])
    right_about_the_server(check, resources, given.photonc, given.bundle)
    return check.exit_code()


if __name__ == "__main__":
    sys.exit(main())
