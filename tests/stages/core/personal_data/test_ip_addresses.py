"""IP addresses, and what else is four numbers."""

import pytest

from stages.core.personal_data import find


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("connect to 52.14.33.9:443", "52.14.33.9"),
        ("服务器地址为47.96.12.33，", "47.96.12.33"),
        ("the host 8.8.8.8", "8.8.8.8"),
        ("from 2606:4700:4700::1111.", "2606:4700:4700::1111"),
        ("2001:db8:: is for examples", "2001:db8::"),
    ],
)
def test_public_addresses_are_found(text, address):
    assert find(text, ("ip_address",)) == [("ip_address", address)]


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8, sections 1.2.3.4 and 12.10.2.1",
        "version 93.184.216.34, v1.22.33.44",
        "192.168.0.1 10.0.0.1 172.16.254.1 127.0.0.1 255.255.255.0 ::1 fe80::1",
        "1.3.6.1.4.1.311, 999.1.1.1, 12:30:45, 2001: A Space Odyssey",
    ],
)
def test_other_numbers_are_not(text):
    assert find(text, ("ip_address",)) == []
