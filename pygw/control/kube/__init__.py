"""Kubernetes mode of the control process: informers, statuses, leader election, events.

`source` gives the controller a ClusterState as file mode's YamlSource does; `mode` joins the parts. Nothing here
decides what is served: that is `pygw.control.resolve`, for both modes.
"""
