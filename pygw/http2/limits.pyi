LIMITS: tuple[tuple[str, int, str, str], ...]
"""Every limit of a connection: its name, default, unit and reason. ConnectionOptions.limits may override each."""
