"""`pygw run`: serve the Gateway API YAML in files and folders, or what the Kubernetes API says, and apply changes."""

from __future__ import annotations

import argparse
import json
import os
import sys

from pygw.commands import options as types
from pygw.commands.options import Parser
from pygw.errors import UsageError
from pygw.settings import describe

DESCRIPTION = """Serve the Gateway API YAML in files and folders, for which Kubernetes is not needed; or, with
--kubernetes, what the Kubernetes API says, and write statuses back.

Changes are applied as they are made, without dropping a call. A broken change of a file keeps the last good
configuration and is logged with file, line and reason. Logs go to standard error."""

EPILOG = """examples:
  pygw run -f gateway.yaml --port-map 80=18080
  pygw run -f gateways/ -f services.yaml --resolve default/greeter:50051=127.0.0.1:50051
  kubectl get gateways,grpcroutes,services -A -o yaml | pygw run -f - --port-map 80=18080
  pygw run --kubernetes --context kind-kind --gateway-address 127.0.0.1 --port-map 80=18080
  pygw run --kubernetes --watch-namespace team-a --watch-namespace team-b
  pygw run -f gateways/ --run-dir /run/pygw --takeover
  PYGW_WORKERS=4 PYGW_PORT_MAP=80=18080,443=18443 pygw run -f gateways/

signals:
  SIGTERM, SIGINT  drain: not ready, still accepting for --drain-delay, then GOAWAY, calls finish, exit 0;
                   a second one exits at once
  SIGHUP           read the source again, reopen the access log
  SIGUSR1          reopen the access log

exit codes:
  0    drained and stopped
  1    could not start: no valid Gateway, a port in use or not permitted
  2    unusable arguments
  130  a second SIGINT ended it at once (143: SIGTERM)

Each option is also an environment variable, shown in brackets; repeatable ones are separated by commas there. The
command line wins.
"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of `pygw run` to its parser."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add = parser.add_option
    add(
        "-f", "--filename", action="append", metavar="PATH", dest="paths",
        help="a file or folder of Gateway API YAML; - is standard input; repeatable",
    )  # fmt: skip
    _add_kubernetes(parser)
    add(
        "--port-map", action="append", default=[], type=types.port_map, metavar="80=18080",
        help="bind a listener's port as another local port, 0 for any free one; routing and statuses keep the "
        "listener's own; repeatable",
    )  # fmt: skip
    add(
        "--bind", action="append", default=["*"], type=types.ip_address, metavar="ADDRESS",
        help="where listeners bind whose Gateway has no address of its own; default all, v4 and v6; repeatable",
    )  # fmt: skip
    add(
        "--workers", type=types.workers, metavar="N",
        help="worker processes that share the ports; default the number of usable CPUs (affinity and cgroup quota)",
    )  # fmt: skip
    add(
        "--admin", type=types.host_port_or_off, default=("127.0.0.1", 9901), metavar="HOST:PORT",
        help="the admin server: /healthz /readyz /metrics /config /status /endpoints /explain, POST /drain; default "
        "127.0.0.1:9901; off for none",
    )  # fmt: skip
    add(
        "--probe-address", type=types.host_port_or_off, default=(), metavar="HOST:PORT",
        help="only /healthz, /readyz and /metrics, for probes and scrapers from outside; default off",
    )  # fmt: skip
    add(
        "--resolve", action="append", default=[], type=types.service_override, metavar="NS/NAME:PORT=HOST:PORT",
        help="where a Service port is found, with or without a Service object; repeatable",
    )  # fmt: skip
    add(
        "--controller-name", default="pygw.dev/gateway-controller", metavar="NAME",
        help="GatewayClasses with this controllerName are ours; default pygw.dev/gateway-controller",
    )  # fmt: skip
    add(
        "--gateway-address", action="append", default=[], type=types.ip_address, metavar="ADDRESS",
        help="an address that Gateways without their own show in status.addresses; repeatable; with --kubernetes the "
        "default is the load balancer of --gateway-service, or else the nodes of all ready replicas",
    )  # fmt: skip
    add(
        "--trusted-proxy", action="append", default=[], type=types.network, metavar="NETWORK",
        help="x-forwarded-for from these peers is believed (--set trusted_proxy_hops=N says how far); repeatable",
    )  # fmt: skip
    add(
        "--proxy-protocol-from", action="append", default=[], type=types.network, metavar="NETWORK",
        help="connections from these peers begin with a PROXY protocol header, v1 or v2; repeatable",
    )  # fmt: skip
    _add_place(parser)
    _add_operations(parser)


def _add_place(parser: Parser) -> None:
    add = parser.add_option
    add(
        "--node", default="", metavar="NAME",
        help="the node that we run on, for Services that prefer endpoints on the same node (trafficDistribution)",
    )  # fmt: skip
    add(
        "--zone", default="", metavar="NAME",
        help="the zone that we run in, likewise; with --kubernetes the default is what EndpointSlices say of --node",
    )  # fmt: skip


def _add_kubernetes(parser: Parser) -> None:
    add = parser.add_option
    add(
        "--kubernetes", action="store_true",
        help="serve what the Kubernetes API says, and write statuses back; as the Pod's service account, or by "
        "kubeconfig",
    )  # fmt: skip
    add(
        "--kubeconfig", default="", metavar="PATH",
        help="with --kubernetes: the kubeconfig; default the Pod's account, else KUBECONFIG or ~/.kube/config",
    )  # fmt: skip
    add("--context", default="", metavar="NAME", help="with --kubernetes: the context in the kubeconfig")
    add(
        "--watch-namespace", action="append", default=[], type=types.namespace, metavar="NAMESPACE",
        help="with --kubernetes: read this namespace alone, for which a Role in it is enough; repeatable",
    )  # fmt: skip
    add(
        "--gateway-class", action="append", default=["pygw"], metavar="NAME",
        help="with --watch-namespace, where GatewayClasses may not be read: Gateways of this class are ours; default "
        "pygw; repeatable",
    )  # fmt: skip
    add(
        "--gateway-service", default="", type=types.namespaced_name, metavar="NAMESPACE/NAME",
        help="with --kubernetes: the Service in front of us; its load balancer's addresses go into status.addresses",
    )  # fmt: skip
    add(
        "--allow-external-names", action="store_true",
        help="with --kubernetes: relay to Services of type ExternalName, which let whoever may write a Service send "
        "traffic anywhere (CVE-2021-25740); default off",
    )  # fmt: skip


def _add_operations(parser: Parser) -> None:
    add = parser.add_option
    add(
        "--log-format", choices=("json", "console"),
        help="default: console on a terminal, json otherwise",
    )  # fmt: skip
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="default info")
    add(
        "--access-log", default="off", metavar="off|json|PATH",
        help="one JSON line for each call, to standard error (json) or a file; default off",
    )  # fmt: skip
    add(
        "--drain-delay", type=types.seconds, default=5.0, metavar="SECONDS",
        help="how long to go on accepting after SIGTERM, until load balancers have noticed; default 5",
    )  # fmt: skip
    add(
        "--drain-timeout", type=types.seconds, default=30.0, metavar="SECONDS",
        help="how long calls may then take to finish; what is left ends with grpc-status 14; default 30",
    )  # fmt: skip
    add(
        "--run-dir", default="", metavar="DIR",
        help="serve a control socket in DIR, by which a later instance can take over; made with mode 0700 where it is "
        "absent; default off",
    )  # fmt: skip
    add(
        "--takeover", action="store_true",
        help="take the listening sockets over from the instance that runs with the same --run-dir, which then drains; "
        "where none runs, start as usual",
    )  # fmt: skip
    add(
        "--set", action="append", default=[], type=types.setting, metavar="NAME=VALUE", dest="settings",
        help="a limit or timer by name; repeatable",
    )  # fmt: skip
    parser.add_argument("--list-settings", action="store_true", help="print all limits and timers, and exit")
    parser.add_argument(
        "-o", "--output", choices=("json", "table"), help="of --list-settings; default: table on a terminal, else json"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it; return the exit code."""
    if arguments.list_settings:
        print(settings_list(arguments.output or ("table" if sys.stdout.isatty() else "json")))
        return 0
    _check_source(arguments)
    if arguments.takeover and not arguments.run_dir:
        raise UsageError("pygw run: --takeover needs --run-dir DIR, the same as of the running instance")
    # Here and not above: --help and --list-settings need none of it.
    from pygw import logs
    from pygw.cpus import usable_cpus
    from pygw.launcher import Launcher
    from pygw.run_options import RunOptions

    options = RunOptions(
        paths=tuple(arguments.paths or ()),
        workers=arguments.workers or usable_cpus(),
        port_map=_port_map(arguments.port_map),
        bind=tuple(dict.fromkeys(arguments.bind)),
        admin=arguments.admin or None,
        probe=arguments.probe_address or None,
        controller_name=arguments.controller_name,
        gateway_addresses=tuple(arguments.gateway_address),
        resolve=tuple((*service, *target) for service, target in arguments.resolve),
        trusted_proxies=tuple(arguments.trusted_proxy),
        proxy_protocol_from=tuple(arguments.proxy_protocol_from),
        log_format=arguments.log_format or logs.default_format(),
        log_level=arguments.log_level,
        access_log=_checked_access_log(arguments.access_log),
        drain_delay=arguments.drain_delay,
        drain_timeout=arguments.drain_timeout,
        settings=dict(arguments.settings),
        kubernetes=bool(arguments.kubernetes),
        kubeconfig=arguments.kubeconfig,
        context=arguments.context,
        watch_namespaces=tuple(dict.fromkeys(arguments.watch_namespace)),
        gateway_service=arguments.gateway_service,
        gateway_classes=tuple(dict.fromkeys(arguments.gateway_class)),
        allow_external_names=bool(arguments.allow_external_names),
        node=arguments.node,
        zone=arguments.zone,
        run_dir=arguments.run_dir,
        takeover=bool(arguments.takeover),
    )
    logs.set_up("launcher", options.log_format, options.log_level)
    has_stdin = "-" in options.paths
    if has_stdin:
        _copy_stdin()
    return Launcher(options, has_stdin_copy=has_stdin).run()


def settings_list(output: str) -> str:
    """What --list-settings prints."""
    settings = describe()
    if output == "json":
        return json.dumps(settings, indent=2)
    width = max(len(item["name"]) for item in settings)
    lines = []
    for item in settings:
        default = str(item["default"]).lower() if isinstance(item["default"], bool) else str(item["default"])
        lines.append(f"{item['name']:<{width}}  {default} {item['unit']}")
        lines.append(f"{'':<{width}}  {item['reason']}")
        if item["metric"]:
            lines.append(f"{'':<{width}}  metric: {item['metric']}")
    return "\n".join(lines)


def _check_source(arguments: argparse.Namespace) -> None:
    """Say at once what cannot work; what comes and goes later is the configuration's own matter."""
    if not arguments.kubernetes:
        only_there = ("kubeconfig", "context", "watch_namespace", "gateway_service", "allow_external_names")
        for name in only_there:
            if getattr(arguments, name):
                raise UsageError(f"pygw run: --{name.replace('_', '-')} needs --kubernetes")
        _check_paths(arguments.paths)
    elif arguments.paths:
        raise UsageError("pygw run: --kubernetes and -f are two sources; give one of them")
    elif arguments.resolve:
        raise UsageError("pygw run: --resolve is for file mode; with --kubernetes EndpointSlices say it")
    elif arguments.kubeconfig and not os.path.isfile(arguments.kubeconfig):
        raise UsageError(f"pygw run: --kubeconfig {arguments.kubeconfig}: no such file")


def _check_paths(paths: list[str] | None) -> None:
    if not paths:
        raise UsageError("pygw run: what to serve is missing; name files or folders with -f PATH, or give --kubernetes")
    if paths.count("-") > 1:
        raise UsageError("pygw run: -f - is standard input and can be given only once")
    for path in paths:
        if path == "-":
            continue
        if not os.path.exists(path):
            raise UsageError(f"pygw run: -f {path}: no such file or folder")
        if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
            raise UsageError(f"pygw run: -f {path}: we may not read it")


def _port_map(pairs: list[tuple[int, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for listener, local in pairs:
        if found.setdefault(str(listener), local) != local:
            raise UsageError(f"pygw run: --port-map maps port {listener} twice, to {found[str(listener)]} and {local}")
        twin = next((port for port, other in found.items() if other == local and port != str(listener)), None)
        if local and twin:
            raise UsageError(f"pygw run: --port-map binds ports {twin} and {listener} both as local port {local}")
    return found


def _checked_access_log(path: str) -> str:
    """off, json or a path that can be appended to."""
    if path not in ("off", "json"):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640))
        except OSError as error:
            raise UsageError(f"pygw run: --access-log {path}: {error.strerror}") from None
    return path


def _copy_stdin() -> None:
    """Put standard input into a file in memory: a control process that replaces another reads it again."""
    copy = os.memfd_create("pygw-stdin")
    while chunk := sys.stdin.buffer.read(1 << 20):
        os.write(copy, chunk)
    os.lseek(copy, 0, os.SEEK_SET)
    os.dup2(copy, 0)
    os.close(copy)
