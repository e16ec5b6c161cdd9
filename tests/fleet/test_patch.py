"""Updates of two hosts, one after the other: what is told, what is done, and that a host which is not well ends it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from .hosts import FIRST, SECOND, on, play

# A package in two versions, the second one from a source of the host's own. That one stops nginx where /run/spoil is.
SOURCE = r"""
mkdir -p /srv/patch && cd /srv/patch
for version in 1 2; do
    rm -rf tree && mkdir -p tree/DEBIAN
    cat >tree/DEBIAN/control <<END
Package: molam-patched
Version: $version
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: A package that there is an update for
END
    printf '%s\n' '#!/bin/sh' '[ ! -e /run/spoil ] || systemctl stop nginx' >tree/DEBIAN/postinst
    chmod 755 tree/DEBIAN/postinst
    dpkg-deb --root-owner-group --build tree $version.deb
done
cat tree/DEBIAN/control - >Packages <<END
Filename: ./2.deb
Size: $(stat --format=%s 2.deb)
SHA256: $(sha256sum 2.deb | cut -d' ' -f1)
END
echo 'deb [trusted=yes] file:/srv/patch ./' >/etc/apt/sources.list.d/patch.list
dpkg --install 1.deb
"""
AWAY = """
systemctl start nginx
dpkg --purge molam-patched
rm -rf /srv/patch /run/spoil /etc/apt/sources.list.d/patch.list
"""


def patch(*options: str) -> subprocess.CompletedProcess[str]:
    """Patch both hosts."""
    return play("patch.yml", *options)


def version(address: str) -> str:
    """Return which version of the package a host has, and in which state."""
    return on(address, "dpkg-query --show --showformat='${Version} ${db:Status-Status}' molam-patched")


def booted(address: str) -> str:
    """Return when a host was started."""
    return on(address, "systemctl show --value --property=UserspaceTimestampMonotonic")


@pytest.fixture
def boots() -> Iterator[tuple[str, str]]:
    """Give both hosts the package's first version and the source of its second; when they were started."""
    for address in (FIRST, SECOND):
        on(address, SOURCE)
    yield booted(FIRST), booted(SECOND)
    for address in (FIRST, SECOND):
        on(address, AWAY)


def test_check_mode_tells_and_does_nothing(boots: tuple[str, str]) -> None:
    on(FIRST, "touch /run/reboot-required")
    answer = patch("--check", "--diff", "--limit=hard13")
    on(FIRST, "rm /run/reboot-required")
    assert answer.returncode == 0, answer.stdout
    assert re.search(r"molam-patched +1 +2\n", answer.stdout)
    assert re.search(r"Nothing was changed; this would be done:\s+hard13 +\d+ packages, rebooted", answer.stdout)
    assert version(FIRST) == "1 installed"
    assert booted(FIRST) == boots[0]


def test_a_host_that_is_not_well_ends_it(boots: tuple[str, str]) -> None:
    on(FIRST, "touch /run/spoil")
    answer = patch("--extra-vars=patch_seconds=1")
    assert answer.returncode == 2
    message = " ".join(answer.stdout.split())
    assert "hard13 is not well after the update. molam_front_door_ready is 0" in message
    assert "left as they are: hard12. Mend hard13" in message
    assert version(FIRST) == "2 installed"
    assert version(SECOND) == "1 installed"
    # Run again with nothing mended, it does not even begin.
    on(FIRST, "touch /run/reboot-required")
    assert "hard13 is not well before the update; nothing was changed on it." in patch().stdout
    on(FIRST, "rm /run/reboot-required")
    assert (booted(FIRST), booted(SECOND)) == boots


def test_it_reboots_where_that_is_needed_and_finishes_what_was_cut_off(boots: tuple[str, str]) -> None:
    on(FIRST, "touch /run/reboot-required")
    on(SECOND, "dpkg --unpack /srv/patch/2.deb")
    assert version(SECOND) == "2 unpacked"
    answer = patch()
    assert answer.returncode == 0, answer.stdout
    assert version(FIRST) == version(SECOND) == "2 installed"
    assert booted(FIRST) != boots[0]
    assert booted(SECOND) == boots[1]
    assert re.search(r"hard13 +\d+ packages, rebooted", answer.stdout)
    assert re.search(r"hard12 +\d+ packages, not rebooted", answer.stdout)
