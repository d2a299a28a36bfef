"""What `pygw demo` starts: two example gRPC backends, a gateway in front of them and a tour of calls through it.

Only this package needs grpcio; the gateway itself never imports it. Knows nothing of the relay or the control
plane: it starts `pygw run` as a process and talks to it over the network, as a user would.
"""
