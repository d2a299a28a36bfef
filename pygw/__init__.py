"""pygw: a gRPC gateway for the Kubernetes Gateway API."""

__version__ = "0.1.0"

from pygw import compiled as _  # noqa: F401  (finds the compiled modules)
