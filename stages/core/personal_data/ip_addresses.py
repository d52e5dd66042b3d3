"""IP addresses, of both versions."""

import ipaddress
import re
from collections.abc import Iterator

from stages.core.personal_data.recogniser import WORD, Recogniser, Span, one_of

ADDRESS = re.compile(
    rf"(?<![{WORD}.])(?<![A-Za-z]/)(?P<v4>\d{{1,3}}(?:\.\d{{1,3}}){{3}})(?![{WORD}]|\.\d)"
    rf"|(?<![{WORD}:.])[23][0-9A-Fa-f]{{3}}:(?:[0-9A-Fa-f]{{0,4}}:){{1,6}}[0-9A-Fa-f]{{0,4}}"
    rf"(?![{WORD}:])"
)
SMALL = 30
"""Four numbers up to this are a section's or a version's, unless a word says otherwise."""
ADDRESS_WORDS = one_of(
    "ips?", "ipv4", "address(?:es)?", "hosts?", "servers?", "dns", "ping", "nameservers?", "client",
    "gateway", "router", "dirección", "adresse", "地址", "服务器", "主机",
)  # fmt: skip
VERSION_WORDS = re.compile(
    r"(?:\bv|versions?|release|section|chapter|clause|paragraph|rule|article|§|版本|节)[\s:=.]*$",
    re.IGNORECASE,
)
EXAMPLE_NETWORKS = [
    ipaddress.ip_network(network)
    for network in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
"""Used in writing in place of real addresses (RFC 5737, RFC 3849), so written like them."""


NEAR = 30
"""Characters before an address in which such a word is looked for."""


def ip_spans(line: str) -> Iterator[Span]:
    """Addresses that can belong to somebody: no section or version numbers, none of private, local
    or reserved networks."""
    for match in ADDRESS.finditer(line):
        before = line[max(0, match.start() - NEAR) : match.start()]
        if not is_public(match.group()) or VERSION_WORDS.search(before):
            continue
        is_small = match["v4"] and max(map(int, match["v4"].split("."))) <= SMALL
        if not is_small or ADDRESS_WORDS.search(before):
            yield match.span()


def is_public(found: str) -> bool:
    """Whether this is an address of a public network, or one that stands for it in examples."""
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    if address.version == 6 and address.packed[0] >> 5 != 1:  # all but 2000::/3 is unassigned
        return False
    is_example = any(address in network for network in EXAMPLE_NETWORKS)
    return is_example or (address.is_global and not address.is_multicast)


IP_ADDRESSES = Recogniser(
    "ip_address", r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]", ip_spans
)
