#!/usr/bin/env python3
"""Other implementations of gRPC against Meshwork: builds them, runs every case, and names the peer and the case that fail.

    peers.py [SUITE ...]

All suites, or some of: contract, interop, h2spec, graceful-stop, strict, keepalive.

`.ci/peers` has installed the tools and built our own server and client. What is built and logged is in target/interop/, and
so is results.json, from which the tables of docs/interop.md are made. A peer that cannot be built fails all of its cases.
"""

import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parents[1] / "target").resolve()
WORK = TARGET / "interop"
OURS = TARGET / "debug"

# Seconds. A case takes 5 at most on an idle machine; the quiet ones wait for 90 on purpose.
CASE, QUIET_CASE, BUILD = 60, 200, 1200

GO_VERSION = re.search(r"google.golang.org/grpc v(\S+)", (HERE / "go/go.mod").read_text())[1]
JAVA_VERSION = re.search(r"interop-testing</artifactId>\s*<version>([^<]+)", (HERE / "java/pom.xml").read_text())[1]
NODE_VERSION = json.loads((HERE / "node/package.json").read_text())["dependencies"]["@grpc/grpc-js"]
H2SPEC_VERSION = re.search(r"h2spec v([\d.]+)", (HERE / "h2spec/go.mod").read_text())[1]

# gRPC's cases that need neither TLS nor accounts, by the names of the official clients.
COMMON = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "rpc_soak",
    "channel_soak",
]
COMPRESSED = [
    "client_compressed_unary",
    "server_compressed_unary",
    "client_compressed_streaming",
    "server_compressed_streaming",
]
GO_CLIENT = [*COMMON, "pick_first_unary"]
JAVA_CLIENT = [*COMMON, *COMPRESSED, "pick_first_unary", "very_large_request"]
# grpc-go's interop server knows no gzip.
TO_GO = [*COMMON, "concurrent_large_unary"]
TO_JAVA = [*TO_GO, *COMPRESSED]

# h2spec's cases that our server is known to fail, with the reason; it may pass them.
ACCEPTED = {
    "http2/3.5/2": "after an invalid preface the connection is closed with bytes unread, so that TCP says reset",
}

JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{WORK}/java/lib/*:{WORK}/java/classes"]


class Failed(Exception):
    """Why a case failed."""


class Results:
    """What became of each case."""

    def __init__(self):
        self.cases = []
        self.lock = threading.Lock()

    def add(self, suite, peer, version, case, outcome, detail="", seconds=0.0):
        with self.lock:
            self.cases.append(
                {"suite": suite, "peer": peer, "version": version, "case": case, "outcome": outcome, "detail": detail}
            )
            # h2spec's cases are many and quick: only those of ours that did not pass are worth a line.
            if suite != "h2spec" or outcome not in ("passed", "differs"):
                print(f"{outcome:8} {suite}: {peer}: {case} ({seconds:.1f} s){': ' + detail if detail else ''}", flush=True)

    def run(self, suite, peer, version, case, action):
        began = time.monotonic()
        outcome, detail = "passed", ""
        try:
            action()
        except Exception as error:  # whatever ends a case is its failure: in a thread, nothing else would report it
            outcome, detail = "failed", str(error) or repr(error)
        self.add(suite, peer, version, case, outcome, detail, time.monotonic() - began)

    def close(self):
        """Writes the file and prints the tables; whether all is well."""
        (WORK / "results.json").write_text(json.dumps(self.cases, indent=1) + "\n")
        rows = {}
        for case in self.cases:
            row = rows.setdefault((case["suite"], case["peer"], case["version"]), {"cases": 0, "passed": 0, "others": []})
            row["cases"] += 1
            row["passed"] += case["outcome"] == "passed"
            if case["outcome"] != "passed":
                row["others"].append(f"{case['case']} ({case['outcome']})")
        print("\n| suite | peer | version | cases | passed | not passed |\n|---|---|---|---|---|---|")
        for (suite, peer, version), row in rows.items():
            others = ", ".join(row["others"]) if len(row["others"]) <= 5 else f"{len(row['others'])}, see results.json"
            print(f"| {suite} | {peer} | {version} | {row['cases']} | {row['passed']} | {others} |")
        bad = [case for case in self.cases if case["outcome"] == "failed"]
        for case in bad:
            print(f"FAILED: {case['suite']}: {case['peer']}: {case['case']}: {case['detail']}", file=sys.stderr)
        # An accepted deviation of ours has its reason, and a reference's are its own: neither fails the run.
        passed = sum(case["outcome"] == "passed" for case in self.cases)
        print(f"\n{passed} passed, {len(bad)} failed")
        return not bad and bool(self.cases)


def run(command, log, limit, cwd=None, env=None):
    """Runs a command to its end; its output goes to a file, whose last lines say why it failed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            process = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=limit, cwd=cwd, env=env
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"did not end within {limit} s, see {log}") from None
        except OSError as error:
            raise Failed(str(error)) from None
    if process.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        said = next((line for line in lines if re.search(r"exception|error|fatal|failed", line, re.I)), (lines or ["nothing"])[-1])
        raise Failed(f"exit code {process.returncode}: {said.strip()[:400]} (see {log})")


# The peers, each from its own package registry.


def build_go():
    folder = WORK / "go"
    folder.mkdir(parents=True, exist_ok=True)
    packages = [".", "./strict", "google.golang.org/grpc/interop/client", "google.golang.org/grpc/interop/server"]
    run(["go", "build", "-mod=readonly", "-o", f"{folder}/", *packages], WORK / "logs/build-go", BUILD, HERE / "go")


def build_java():
    folder = WORK / "java"
    (folder / "classes").mkdir(parents=True, exist_ok=True)
    goal = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"
    run(
        ["mvn", "-B", "-f", f"{HERE}/java/pom.xml", goal, f"-DoutputDirectory={folder}/lib"],
        WORK / "logs/build-java-lib",
        BUILD,
    )
    run(
        ["javac", "-cp", f"{folder}/lib/*", "-d", f"{folder}/classes", *(HERE / "java").glob("*.java")],
        WORK / "logs/build-java",
        BUILD,
    )


def build_node():
    shutil.copytree(HERE / "node", WORK / "node", dirs_exist_ok=True)
    run(["npm", "ci", "--no-audit", "--no-fund"], WORK / "logs/build-node", BUILD, WORK / "node")


def build_cpp():
    folder = WORK / "cpp"
    folder.mkdir(parents=True, exist_ok=True)
    proto = ["-I", f"{HERE}/proto", f"--cpp_out={folder}", f"--grpc_out={folder}", "grpc/testing/test.proto"]
    plugin = shutil.which("grpc_cpp_plugin")
    run(["protoc", f"--plugin=protoc-gen-grpc={plugin}", *proto], WORK / "logs/build-cpp-proto", BUILD)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "grpc++", "protobuf"], capture_output=True, text=True)
    sources = [HERE / "cpp/client.cc", *(folder / "grpc/testing").glob("*.cc")]
    command = ["g++", "-std=c++17", f"-I{folder}", *map(str, sources), *flags.stdout.split(), "-pthread"]
    run([*command, "-o", f"{folder}/client"], WORK / "logs/build-cpp", BUILD)


def build_h2spec():
    """h2spec asks as a browser does; here a copy of it asks as a gRPC client does."""
    module = f"github.com/summerwind/h2spec@v{H2SPEC_VERSION}+incompatible"
    log = WORK / "logs/build-h2spec-module"
    run(["go", "mod", "download", "-json", module], log, BUILD, WORK)
    copy, runner = WORK / "h2spec-module", WORK / "h2spec-runner"
    shutil.rmtree(copy, ignore_errors=True)
    # The module cache is read-only.
    shutil.copytree(json.loads(log.read_text())["Dir"], copy, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(copy):
        os.chmod(folder, 0o755)
    (copy / "go.mod").write_text("module github.com/summerwind/h2spec\n\ngo 1.24\n")
    util = copy / "spec/util.go"
    before = util.read_text()
    after = before.replace('HeaderField(":method", "GET"),', 'HeaderField(":method", "POST"),', 1).replace(
        'HeaderField(":authority", authority),',
        'HeaderField(":authority", authority),\n'
        'HeaderField("content-type", "application/grpc"),\nHeaderField("te", "trailers"),',
        1,
    )
    if after.count('"POST"') != 1 or after.count('"trailers"') != 1:
        raise Failed(f"{util} is not as expected: the requests cannot be changed")
    util.write_text(after)
    shutil.copytree(HERE / "h2spec", runner, dirs_exist_ok=True)
    run(["go", "build", "-mod=readonly", "-o", f"{WORK}/h2spec", "."], WORK / "logs/build-h2spec", BUILD, runner)


BUILDERS = {"go": build_go, "java": build_java, "node": build_node, "cpp": build_cpp, "h2spec": build_h2spec}


def build(names):
    """Builds the peers; why those that are missing are."""
    missing = {}
    for name in names:
        began = time.monotonic()
        for attempt in (1, 2):
            try:
                BUILDERS[name]()
                missing.pop(name, None)
                break
            except (Failed, OSError, ValueError, KeyError, shutil.Error) as error:
                # Once more: a registry may have been slow.
                missing[name] = f"the peer {name} could not be built: {error}"
        print(f"{'MISSING' if name in missing else 'built':8} {name} ({time.monotonic() - began:.1f} s)", flush=True)
    return missing


# Servers


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Server:
    """A server process on loopback that accepts connections."""

    def __init__(self, name, command, port, env=None):
        self.address = f"127.0.0.1:{port}"
        self.port = port
        self.log = WORK / "logs" / f"server-{name}-{port}"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )
        limit = time.monotonic() + CASE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if self.process.poll() is not None or time.monotonic() > limit:
                self.kill()
                raise Failed(f"{name} did not start, see {self.log}")
            time.sleep(0.05)

    def terminate(self):
        """Asks it to leave; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(CASE)
        except subprocess.TimeoutExpired:
            raise Failed(f"the server did not leave within {CASE} s of SIGTERM, see {self.log}") from None

    def kill(self):
        self.process.kill()
        self.process.wait()


def meshwork(instance_id="interop", port=None):
    port = port or free_port()
    flags = ["--listen", f"127.0.0.1:{port}", "--instance-id", instance_id, "--drain-limit", "30s"]
    return Server("meshwork", [OURS / "interop-server", *flags], port)


def grpc_go():
    port = free_port()
    # So that it says why it ends a connection.
    env = {"GRPC_GO_LOG_SEVERITY_LEVEL": "info", "GRPC_GO_LOG_VERBOSITY_LEVEL": "99"}
    return Server("grpc-go", [WORK / "go/server", "--port", str(port)], port, env)


def grpc_java():
    port = free_port()
    main = "io.grpc.testing.integration.TestServiceServer"
    return Server("grpc-java", [*JAVA, main, f"--port={port}", "--use_tls=false"], port)


# Suites


def contract(results, missing):
    """Our trimmed copy of gRPC's test contract has its names, types and numbers."""

    def compare():
        if "java" in missing:
            raise Failed(missing["java"])
        with zipfile.ZipFile(next((WORK / "java/lib").glob("grpc-interop-testing-*.jar"))) as jar:
            official = "".join(
                jar.read(f"grpc/testing/{name}.proto").decode() for name in ("empty", "messages", "test")
            )
        wrong = sorted(fields((HERE / "proto/grpc/testing/test.proto").read_text()) - fields(official))
        if wrong:
            raise Failed(f"not in grpc-java's: {wrong}")

    results.run("contract", "grpc.testing", JAVA_VERSION, "names, types and numbers", compare)


def fields(proto):
    """Each field and method of a proto file, with the message or service it belongs to."""
    found, block = set(), ""
    text = re.sub(r"//.*", "", proto).replace("grpc.testing.", "")
    for kind, name, method, field in re.findall(
        r"\b(message|service|enum)\s+(\w+)|rpc\s+(.+?\)\s*returns\s*\(.+?\))|^ +((?:repeated )?\w+ \w+ = \d+);", text, re.M | re.S
    ):
        if kind:
            block = name
        else:
            found.add((block, " ".join((method or field).split())))
    return found


def interop(results, missing):
    """The official clients against our server, and our channel against the official servers."""

    def client(peer, version, cases, command, why):
        label = f"{peer} client -> meshwork server"
        server = None if why else meshwork()
        for case in cases:
            log = WORK / "logs" / f"{peer}-{case}"

            def action(case=case, log=log):
                if why:
                    raise Failed(why)
                run(command(server.port, case), log, CASE)

            results.run("interop", label, version, case, action)
        if server:
            results.run("interop", label, version, "the server leaves in order", lambda: in_order(server))

    def server(peer, version, cases, start, why):
        label = f"meshwork channel -> {peer} server"
        started = None
        if not why:
            try:
                started = start()
            except (Failed, OSError) as error:
                why = str(error)
        for case in cases:

            def action(case=case):
                if why:
                    raise Failed(why)
                run([OURS / "interop-client", started.address, case], WORK / "logs" / f"to-{peer}-{case}", CASE)

            results.run("interop", label, version, case, action)
        if started:
            started.kill()

    # By default an iteration of a soak may take a second: what a JVM that starts on a busy machine needs for its first.
    patience = "--soak_per_iteration_max_acceptable_latency_ms=30000"

    def go_command(port, case):
        return [WORK / "go/client", "--server_host=127.0.0.1", f"--server_port={port}", f"--test_case={case}", patience]

    def java_command(port, case):
        main = "io.grpc.testing.integration.TestServiceClient"
        return [*JAVA, main, "--server_host=127.0.0.1", f"--server_port={port}", "--use_tls=false", f"--test_case={case}", patience]

    client("grpc-go", GO_VERSION, GO_CLIENT, go_command, missing.get("go"))
    server("grpc-go", GO_VERSION, TO_GO, grpc_go, missing.get("go"))
    client("grpc-java", JAVA_VERSION, JAVA_CLIENT, java_command, missing.get("java"))
    server("grpc-java", JAVA_VERSION, TO_JAVA, grpc_java, missing.get("java"))


def in_order(server):
    code = server.terminate()
    if code != 0:
        raise Failed(f"exit code {code}, see {server.log}")


def h2spec(results, missing):
    """HTTP/2 itself, strictly, with gRPC requests: our server, and grpc-go's as a reference."""
    for peer, start, needs in [("meshwork server", meshwork, ["h2spec"]), ("grpc-go server (reference)", grpc_go, ["h2spec", "go"])]:
        try:
            for need in needs:
                if need in missing:
                    raise Failed(missing[need])
            outcomes = WORK / f"h2spec-{peer.split()[0]}.tsv"
            server = start()
            try:
                run([WORK / "h2spec", server.address, outcomes], WORK / f"logs/h2spec-{peer.split()[0]}", QUIET_CASE)
            finally:
                server.kill()
            lines = [line.split("\t", 2) for line in outcomes.read_text().splitlines()]
            if len(lines) < 146:
                raise Failed(f"only {len(lines)} of 146 cases were run")
        except (Failed, OSError) as error:
            results.add("h2spec", peer, H2SPEC_VERSION, "all", "failed", str(error))
            continue
        for outcome, case, description in lines:
            if outcome != "passed":
                if peer != "meshwork server":
                    outcome = "differs"
                elif case in ACCEPTED:
                    outcome, description = "accepted", f"{description} ({ACCEPTED[case]})"
                else:
                    outcome = "failed"
            results.add("h2spec", peer, H2SPEC_VERSION, case, outcome, "" if outcome == "passed" else description)


class Client:
    """A client of another language that calls two servers in a loop until its stdin ends."""

    def __init__(self, name, command):
        self.name = name
        self.errors = WORK / "logs" / f"graceful-stop-{name}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.servers, self.failures, self.summary = set(), [], None

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put(None)

    def wait(self, condition, what):
        """Takes in what the client says until the condition holds."""
        limit = time.monotonic() + CASE
        while not condition():
            try:
                line = self.lines.get(timeout=max(0, limit - time.monotonic()))
            except queue.Empty:
                raise Failed(f"{what} did not happen within {CASE} s; {self.told()}") from None
            if line is None:
                raise Failed(f"the client ended before {what}; {self.told()}")
            word, _, rest = line.partition(" ")
            if word == "server":
                self.servers.add(rest)
            elif word == "failed:":
                self.failures.append(rest)
            elif word == "calls":
                self.summary = re.fullmatch(r"(\d+) failed (\d+)", rest)

    def told(self):
        return f"{len(self.failures)} calls failed, the first: {self.failures[:1]}; see {self.errors}"

    def answered_by(self, server):
        self.wait(lambda: server in self.servers, f"an answer of {server}")

    def finish(self):
        self.process.stdin.close()
        self.wait(lambda: self.summary, "the end")
        calls, failed = map(int, self.summary.groups())
        self.process.wait(CASE)
        if failed or not calls:
            raise Failed(f"{failed} of {calls} calls failed, the first: {self.failures[:1]}; see {self.errors}")
        return calls


def graceful_stop(results, missing):
    """Stock clients of two of our servers, each of which is replaced under load: no call fails."""
    clients = {
        "go": ("grpc-go", GO_VERSION, [WORK / "go/graceful"]),
        "java": ("grpc-java", JAVA_VERSION, [*JAVA, "Client"]),
        "node": ("grpc-js", NODE_VERSION, ["node", WORK / "node/client.js", HERE / "proto/grpc/testing/test.proto"]),
        "cpp": ("gRPC C++", cpp_version(), [WORK / "cpp/client"]),
    }
    for name, (peer, version, command) in clients.items():

        def action(name=name, command=command):
            if name in missing:
                raise Failed(missing[name])
            replace_both(name, command)

        results.run("graceful-stop", f"{peer} client", version, "two servers are replaced under load", action)


def cpp_version():
    found = subprocess.run(["pkg-config", "--modversion", "grpc++"], capture_output=True, text=True)
    return found.stdout.strip() or "missing"


def replace_both(name, command):
    servers = [meshwork("a1"), meshwork("b1")]
    client = None
    try:
        client = Client(name, [*command, ",".join(server.address for server in servers)])
        for first in ("a1", "b1"):
            client.answered_by(first)
        for index, successor in enumerate(("a2", "b2")):
            in_order(servers[index])
            servers[index] = meshwork(successor, servers[index].port)
            client.answered_by(successor)
        print(f"         {name}: {client.finish()} calls, 0 failed", flush=True)
    finally:
        if client and client.process.poll() is None:
            client.process.kill()
        for server in servers:
            server.kill()


def strict(results, missing):
    """Stock clients of a mesh in strict mode: they get in with its certificate only, and believe only whom they asked for."""
    # The name that a client asks for, whose certificates it believes, whose it has, and what it then says.
    refused = "(?i)unavailable"
    cases = {
        "a certificate of the mesh": ("order", "mesh", "mesh", "^SERVING$"),
        "no certificate": ("order", "mesh", None, refused),
        "a certificate of another CA": ("order", "mesh", "other", refused),
        "a server of another service": ("customer", "mesh", "mesh", f"{refused}.* (not|matching) customer"),
        "a server of another CA": ("order", "other", "mesh", f"{refused}.* (unknown authority|certification path)"),
    }
    clients = {
        "go": ("grpc-go", GO_VERSION, [WORK / "go/strict"]),
        "java": ("grpc-java", JAVA_VERSION, [*JAVA, "Strict"]),
    }
    why, address, folders = None, None, {}

    def ask(name, command, case, service, believed, own, expected):
        if reason := missing.get(name) or why:
            raise Failed(reason)
        log = WORK / "logs" / f"strict-{name}-{case.replace(' ', '-')}"
        run([*command, address, service, folders[believed] / "ca.pem", *([folders[own]] if own else [])], log, CASE)
        if not re.search(expected, said := log.read_text(), re.S):
            raise Failed(f"{said[:400]!r} is not {expected!r}")

    with contextlib.ExitStack() as stack:
        try:
            address, folders = stack.enter_context(strict_mesh())
        except (Failed, OSError) as error:
            why = str(error)
        for name, (peer, version, command) in clients.items():
            for case, asked in cases.items():
                action = functools.partial(ask, name, command, case, *asked)
                results.run("strict", f"{peer} client", version, case, action)


@contextlib.contextmanager
def strict_mesh():
    """`meshwork up --tls`: the address of an order, and the folders of an operator's certificate and of a stranger's."""
    folder, log = WORK / "strict", WORK / "logs/strict-mesh"
    shutil.rmtree(folder, ignore_errors=True)
    other = folder / "other"
    program = OURS / "meshwork"
    for command in (["init", "--trust-domain=meshwork.local"], ["issue", "operator/admin", f"--out={other}"]):
        run([program, "ca", *command, f"--ca-dir={other}-ca"], log, CASE)
    up = [program, "up", "--tls", "--registry-addr=127.0.0.1:0", f"--data-dir={folder}/mesh", "--json"]
    with log.open("ab") as errors:
        process = subprocess.Popen(up, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        # One line, once it is ready.
        if not (line := process.stdout.readline()):
            raise Failed(f"the mesh did not start, see {log}")
        ready = json.loads(line)
        address = next(each["address"] for each in ready["instances"] if each["service"] == "order")
        yield address, {"mesh": pathlib.Path(ready["tlsDir"]), "other": other}
    finally:
        process.kill()
        process.wait()


def keepalive(results, missing):
    """A stock server bears a quiet connection of ours: it ends none with too_many_pings."""
    cases = ["quiet_stream", "idle_connection"]

    def check(case):
        if "go" in missing:
            raise Failed(missing["go"])
        server = grpc_go()
        try:
            run([OURS / "interop-client", server.address, case], WORK / f"logs/keepalive-{case}", QUIET_CASE)
            # A connection that the server ends is connected again without a word, so the server is asked.
            if said := re.search(r".*(too many pings|GOAWAY).*", server.log.read_text()):
                raise Failed(f"the server ended a connection: {said[0]}")
        finally:
            server.kill()

    with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
        for case in cases:
            pool.submit(
                results.run, "keepalive", "meshwork channel -> grpc-go server", GO_VERSION, case, lambda case=case: check(case)
            )


SUITES = {
    "contract": (contract, ["java"]),
    "interop": (interop, ["go", "java"]),
    "h2spec": (h2spec, ["h2spec", "go"]),
    "graceful-stop": (graceful_stop, ["go", "java", "node", "cpp"]),
    "strict": (strict, ["go", "java"]),
    "keepalive": (keepalive, ["go"]),
}


def main(names):
    if unknown := [name for name in names if name not in SUITES]:
        sys.exit(f"no such suite: {', '.join(unknown)}\n{__doc__}")
    names = names or list(SUITES)
    WORK.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(WORK / "logs", ignore_errors=True)
    results = Results()
    missing = build(dict.fromkeys(peer for name in names for peer in SUITES[name][1]))
    # They only wait: beside the others.
    waiting = None
    if "keepalive" in names:
        waiting = threading.Thread(target=keepalive, args=(results, missing))
        waiting.start()
    for name in names:
        if name != "keepalive":
            print(f"\n== {name}", flush=True)
            SUITES[name][0](results, missing)
    if waiting:
        waiting.join()
    return 0 if results.close() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
