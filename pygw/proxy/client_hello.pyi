def read_client_hello(data: bytes) -> tuple[str, str, bool]:
    """("whole", server name, whether h2 is offered) of a ClientHello; else what it is instead, with "" and False.

    That is "incomplete", "not TLS" or "malformed".
    """
