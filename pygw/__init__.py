"""pygw: a gRPC gateway for the Kubernetes Gateway API."""

from pygw.compiled import find_modules

__version__ = "0.1.0"

find_modules()
