"""What the commands share on their command lines: checked types, and options that are environment variables too.

`--port-map` is also PYGW_PORT_MAP, and so on; a repeatable option takes its values from the variable split at
commas. The command line wins as a whole: it does not add to what the environment says.
"""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NoReturn

from pygw.errors import UsageError
from pygw.settings import Settings

MAX_INTEGER = 2**31 - 1  # flow-control windows end here (RFC 9113 §6.9.1); no other setting needs more


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says one clear line for a wrong argument, and raises it as UsageError."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self._variables: list[tuple[argparse.Action, str, Any]] = []  # option, its variable, its default

    def add_option(
        self, *flags: str, environment: str = "", default: Any = None, help: str = "", **options: Any
    ) -> None:
        """add_argument for an option that may also come from the environment variable PYGW_…

        `environment` names the variable where it does not follow from the last flag; `default` is used where
        neither is given.
        """
        name = environment or "PYGW_" + flags[-1].lstrip("-").upper().replace("-", "_")
        action = self.add_argument(*flags, default=None, help=f"{help} [{name}]", **options)
        self._variables.append((action, name, default))

    def parse(self, arguments: list[str], environment: Mapping[str, str] = os.environ) -> argparse.Namespace:
        """The arguments, with environment and defaults filled in. Raises UsageError."""
        args, unknown = self.parse_known_args(arguments)
        if unknown:
            self._unknown(unknown[0])
        for action, name, default in self._variables:
            if getattr(args, action.dest) is None:
                text = environment.get(name, "")
                setattr(args, action.dest, self._convert(action, name, text) if text else default)
        return args

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message and where to read on."""
        raise UsageError(f"{self.prog}: {message}; see '{self.prog} --help'")

    def _convert(self, action: argparse.Action, name: str, text: str) -> Any:
        """The value of an environment variable, as the option's own type."""
        convert = action.type if callable(action.type) else str
        repeatable = type(action) is self._registry_get("action", "append")
        try:
            if action.nargs == 0:
                return boolean(text)
            values = [convert(item) for item in (text.split(",") if repeatable else [text])]
        except (argparse.ArgumentTypeError, ValueError) as error:
            self.error(f"{name}: {error}")
        for value in values:
            if action.choices is not None and value not in action.choices:
                self.error(f"{name}: {text!r} is none of {', '.join(map(str, action.choices))}")
        return values if repeatable else values[0]

    def _unknown(self, argument: str) -> NoReturn:
        if not argument.startswith("-"):
            self.error(f"{argument!r} is one argument too many")
        name = argument.partition("=")[0]
        self.error(f"there is no option {name}" + did_you_mean(name, self._option_string_actions))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`, did you mean --port-map?` or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""


def port(text: str) -> int:
    """A port number; 0 lets the system choose."""
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port number (0 to 65535)")
    return int(text)


def port_map(text: str) -> tuple[int, int]:
    """`80=18080`: (the listener's port, the local port)."""
    listener, equals, local = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not LISTENER_PORT=LOCAL_PORT, as in 80=18080")
    return port(listener), port(local)


def ip_address(text: str) -> str:
    """An IP address, without brackets; IPv6 in its short form."""
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address, as in 127.0.0.1 or ::1") from None


def network(text: str) -> str:
    """An address or a network: `10.0.0.0/8`."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no network, as in 10.0.0.0/8 ({error})") from None


def host_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:9901` or `[::1]:9901`; the host is an address or localhost."""
    host, colon, number = text.rpartition(":")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, as in 127.0.0.1:9901 or [::1]:9901")
    if host == "localhost":
        host = "127.0.0.1"
    return ip_address(host), port(number)


def host_port_or_off(text: str) -> tuple[str, int] | tuple[()]:
    """As host_port; `off` is ()."""
    return () if text == "off" else host_port(text)


def namespace(text: str) -> str:
    """The name of a namespace (RFC 1123 label)."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a namespace")
    return text


def namespaced_name(text: str) -> str:
    """`NAMESPACE/NAME` of an object."""
    place, slash, name = text.partition("/")
    if not slash or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME, as in pygw-system/pygw")
    return f"{namespace(place)}/{name}"


def service_override(text: str) -> tuple[tuple[str, str, int], tuple[str, int]]:
    """`default/greeter:50051=127.0.0.1:9000`: ((namespace, name, port), (host, port)) of --resolve."""
    service, equals, target = text.partition("=")
    name, colon, number = service.rpartition(":")
    namespace, slash, name = name.partition("/")
    host, target_colon, target_number = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (equals and colon and slash and target_colon and namespace and name and host):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAMESPACE/NAME:PORT=HOST:PORT, as in default/greeter:50051=127.0.0.1:9000"
        )
    return (namespace, name, port(number)), (host, port(target_number))


def workers(text: str) -> int:
    """A number of worker processes, 1 to 1024."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers (1 to 1024)")
    return int(text)


def seconds(text: str) -> float:
    """A time in seconds, 0 or more; a fraction is fine."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time in seconds (0 or more)")
    return value


def boolean(text: str) -> bool:
    """true or false, in the usual spellings."""
    values = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def setting(text: str) -> tuple[str, Any]:
    """`NAME=VALUE` of a Settings field, typed and checked."""
    name, equals, value = text.partition("=")
    known = {item.name: item for item in fields(Settings)}
    if name not in known:
        hint = did_you_mean(name, known) or "; --list-settings shows them all"
        raise argparse.ArgumentTypeError(f"there is no setting {name!r}{hint}")
    default = known[name].default
    unit = known[name].metadata["unit"]
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, as in {name}={default}")
    if isinstance(default, bool):
        return name, boolean(value)
    if isinstance(default, float):
        return name, seconds(value)
    if not (value.isascii() and value.isdigit()) or int(value) > MAX_INTEGER:
        raise argparse.ArgumentTypeError(f"{name}={value}: a whole number of {unit} is due (0 to {MAX_INTEGER})")
    return name, int(value)
