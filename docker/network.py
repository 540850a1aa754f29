"""``python3 docker/network.py 172.30.77.0/24``: the two lines of ``docker/.env`` about the containers' network.

Label Studio calls no private address unless told to. Rather than let it call them all, its own list of forbidden
networks is given back to it with one gap: the network in which the backend stands.
"""

from __future__ import annotations

import ipaddress
import sys

FORBIDDEN = (
    *(
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
    ),
    *(
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    ),
    *("224.0.0.0/4", "233.252.0.0/24", "240.0.0.0/4", "255.255.255.255/32"),
    *("::/128", "::1/128", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64"),
    *("2001:0000::/32", "2001:20::/28", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8"),
)
"""What Label Studio 1.23.2 forbids by itself."""


def banned(subnet: str) -> list[str]:
    """The forbidden networks without ``subnet``, which must lie in one of them."""
    ours = ipaddress.ip_network(subnet)
    kept: list[str] = []
    for text in FORBIDDEN:
        one = ipaddress.ip_network(text)
        if one.version == ours.version and ours.subnet_of(one):  # type: ignore[arg-type]
            kept += [str(part) for part in sorted(one.address_exclude(ours))]  # type: ignore[arg-type,type-var]
        else:
            kept.append(str(one))
    return kept


def main(arguments: list[str]) -> int:
    """Print the lines; 2 with a sentence where the network is none."""
    try:
        (subnet,) = arguments
        if not ipaddress.ip_network(subnet).is_private:
            raise ValueError(f"{subnet} is not a private network")
        print(f"SUBNET={subnet}\nBANNED_SUBNETS={','.join(banned(subnet))}")
    except ValueError as error:
        print(f"network.py: {error}; expected one private network, as 172.30.77.0/24", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
