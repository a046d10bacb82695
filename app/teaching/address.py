"""The address of a class, and a true sentence on who can open it."""

import ipaddress
import socket
from dataclasses import dataclass

EVERYWHERE = ("0.0.0.0", "::", "")
NO_ACCOUNTS = "There are no accounts: they can use the whole app as well, not only the page of the class."
ONLY_HERE = (
    "Only this machine can open this address, because the app listens on {host} alone. To let your audience in, start "
    "the app with: hydralora-app --host 0.0.0.0 . Then everyone on your network can open it. " + NO_ACCOUNTS
)
OPEN = "Everyone who can reach this machine over the network can open this address. " + NO_ACCOUNTS
AS_YOU = "Whoever can open the app at {host}, as you do, can open this address. " + NO_ACCOUNTS


@dataclass(frozen=True)
class ClassAddress:
    """Where the audience finds the class: `url`, and who can open it in words."""

    url: str
    reach: str


def class_address(listens: str, scheme: str, host: str, code: str) -> ClassAddress:
    """The address of a class.

    Args:
        listens: the address that the app listens on.
        host: the request's `Host`, by which the presenter has opened the app: a name, with a port if there is one.
    """
    name, port = _split(host)
    reach = AS_YOU.format(host=name)
    if _is_loopback(name):
        if listens not in EVERYWHERE:
            reach = ONLY_HERE.format(host=listens)
        elif outside := _own_address():
            name, reach = outside, OPEN
        else:
            reach = "This machine has no network address, so only it can open this address."
    return ClassAddress(f"{scheme}://{f'[{name}]' if ':' in name else name}{port}/class/{code}", reach)


def _split(host: str) -> tuple[str, str]:
    """Name and port, ":7860" or "", of a `Host`."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name, port
    name, colon, port = host.partition(":")
    return name, colon + port


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _own_address() -> str:
    """This machine's address in its network, "" if it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of no machine, kept for documentation
            found = str(probe.getsockname()[0])
        except OSError:
            return ""
    return "" if _is_loopback(found) else found
