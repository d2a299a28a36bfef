"""The kinds of routes that are served, and what compiles each."""

from __future__ import annotations

from collections.abc import Callable

from pygw.control.backends import Targets
from pygw.control.cluster_state import Object
from pygw.control.grpc_routes import compile_grpc_route
from pygw.control.http_routes import compile_http_route
from pygw.control.routes import CompiledRoute

Compiler = Callable[[Object, Targets], CompiledRoute]

COMPILERS: dict[str, Compiler] = {"GRPCRoute": compile_grpc_route, "HTTPRoute": compile_http_route}
