"""Which names of hosts mean this machine alone."""

from ipaddress import IPv6Address, ip_address


def is_address(name: str) -> bool:
    """Return whether a name is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Return whether a name is an address that no other machine can reach."""
    if not is_address(name):
        return False
    address = ip_address(name)
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (inner or address).is_loopback


def is_this_machine(host: str) -> bool:
    """Return whether a server that listens on `host` is for this machine alone."""
    return host.lower() == "localhost" or is_loopback(host)
