MODULES: frozenset[str]
