"""The benchmark suite: `python -m bench` (README.md). No part of the installed package."""
