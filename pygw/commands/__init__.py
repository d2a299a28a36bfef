"""The subcommands: one module each, with `add_arguments(parser)` and `run(args) -> exit code`.

cli.py imports only the one that is called, so `pygw --help` is quick and a command needs only what it uses.
"""
