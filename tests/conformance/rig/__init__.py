"""A Kubernetes control plane on one machine: real etcd, API server and controllers in a network namespace, no Docker.

See docs/conformance.md. `python -m tests.conformance` is its command line.
"""
