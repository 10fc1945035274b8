"""The process between an agent in its sandbox and the network: one for each run.

The sandbox has no network but a listening socket, which belongs to this process. It passes requests
to the models that the user has configured, puts the key in, which the sandbox does not have, and
opens connections to the hosts that the run is allowed. Everything else is refused, and recorded.
"""
