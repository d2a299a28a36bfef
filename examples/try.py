"""Try a route: starts a backend for each Service that it names, and a gateway in front, until Ctrl-C.

    .venv/bin/python examples/try.py examples/grpcroute/weighted.yaml

Each backend implements the services of the GRPCRoute page and answers with its own name.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import yaml

from pygw.demo.backend import ExampleBackend
from pygw.demo.gateway import GatewayProcess
from pygw.demo.services import GREETER, Method, Service

HERE = Path(__file__).parent
SERVICES = (
    GREETER,
    Service("user.UserService", (Method("GetUser"),)),
    Service("order.OrderService", (Method("GetOrder"),)),
    Service("payment.PaymentService", (Method("Pay"),)),
    Service("shared.AuthService", (Method("Check"),)),
    Service("pkg.v2.Thing", (Method("Get"),)),
)


def main() -> None:
    """Serve the route files named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("routes", nargs="+", type=Path, help="files with GRPCRoutes of the Gateway in gateway.yaml")
    routes = parser.parse_args().routes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pygw-try-")))
        config = folder / "config"
        config.mkdir()
        for source in (HERE / "gateway.yaml", HERE / "services.yaml", *routes):
            shutil.copy(source, config)
        backends = {
            service: stack.enter_context(ExampleBackend(service.partition("/")[2], SERVICES))
            for service in sorted(set().union(*map(services_of, routes)))
        }
        resolve = [f"{service}:50051=127.0.0.1:{backend.port}" for service, backend in backends.items()]
        gateway = stack.enter_context(GatewayProcess(config, folder / "gateway.log", resolve))
        for service, backend in backends.items():
            print(f"backend {service} on 127.0.0.1:{backend.port}")
        print(f"gateway on 127.0.0.1:{gateway.port}; change {config} and the change is served\n")
        print(f"grpcurl -plaintext -authority grpc.example.com 127.0.0.1:{gateway.port} list")
        print("Ctrl-C stops everything.", flush=True)
        try:
            while not gateway.has_ended:
                time.sleep(0.2)
            print(gateway.last_log_lines())
        except KeyboardInterrupt:
            print("\nStopped.")


def services_of(path: Path) -> set[str]:
    """`namespace/name` of every Service that the backendRefs of a file name."""
    found = set()
    for document in yaml.safe_load_all(path.read_text()):
        namespace = document["metadata"].get("namespace", "default")
        for rule in document["spec"].get("rules", []):
            found |= {f"{ref.get('namespace', namespace)}/{ref['name']}" for ref in rule.get("backendRefs", [])}
    return found


if __name__ == "__main__":
    main()
