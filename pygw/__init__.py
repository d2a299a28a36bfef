"""pygw: a gRPC gateway for the Kubernetes Gateway API."""

__version__ = "0.1.0"
