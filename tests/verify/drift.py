"""What differs on a host from what the playbook would make of it, and what ends soon. Nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from testinfra.host import Host

from tests.verify import check_mode, expiry, strangers
from tests.verify.check_mode import Check, Hide
from tests.verify.difference import Difference, Drift, Expiring, Kind
from tests.verify.target import Target

COLLECT = Path(__file__).with_name("collect.py")
MANIFEST = "cat /opt/molam-webhook/active/manifest.json"


def look(of: Target, host: Host, hide: Hide) -> Drift:
    """Look at one host; ``hide`` takes secrets out of a text. The check run goes on beside the rest."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(check_mode.run, of, hide)
        collected = collect(host)
        manifest = host.run(MANIFEST)
        check = running.result()
    release = json.loads(manifest.stdout)["release"] if manifest.rc == 0 else ""
    return judge(check, collected, release, hide)


def collect(host: Host) -> dict[str, Any] | str:
    """Return what tests/verify/collect.py tells of a host, or why it does not."""
    answer = host.run(
        "python3 -c %s %s %s",
        COLLECT.read_text(),
        json.dumps(strangers.digests()),
        json.dumps(strangers.tried_places()),
    )
    try:
        said: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        return answer.stderr.strip().rpartition("\n")[2] or f"python3 ended with {answer.rc}"
    return said


def judge(check: Check, collected: Mapping[str, Any] | str, release: str, hide: Hide) -> Drift:
    """Make one of all that was seen."""
    differences, expiring, not_seen = list(check.differences), list[Expiring](), list[str]()
    if check.fault:
        not_seen.append(f"The check run did not come to its end, so more may differ. {check.fault}")
    if check.said:
        differences += other_release(str(check.said["release"]), release)
        seen, ending, unseen = of_certificates(check.said)
        differences, expiring, not_seen = differences + seen, expiring + ending, not_seen + unseen
        try:
            expiring += expiry.waivers(check.said["waivers"], expiry.now().date())
        except (ValueError, KeyError, TypeError) as error:
            not_seen.append(f"verify_waivers can't be read: {error!r}")
    else:
        not_seen.append("Listeners, certificates and waivers: what the inventory says of them was not to be had.")
    if isinstance(collected, str):
        not_seen.append(f"Listeners, units, packages and secrets: nothing was told on the host. {hide(collected)}")
    else:
        made = None if check.fault else check.paths
        found = strangers.of_host(collected, check.said.get("openings"), made, hide)
        differences = merged(differences, found)
        if collected["sockets"] is None:
            not_seen.append("Listeners: ss is not there (package iproute2).")
        if check.said:
            age = int(check.said["secret_age_days"])
            expiring += expiry.secrets(collected["secrets"], age, expiry.now().date())
    try:
        differences = unknown(differences, check.said.get("known", []))
    except ValueError as error:
        not_seen.append(str(error))
    return Drift(differences, sorted(expiring, key=lambda entry: entry.until), not_seen)


def merged(checked: list[Difference], found: Iterable[Difference]) -> list[Difference]:
    """Return both, each file by its own name: a check run names those that come in one archive together, and those that
    molam-try puts in their places not at all.
    """
    others = list(found)
    told = {entry.what for entry in others}
    together = ["/"] if told & strangers.brought_files().keys() else []
    together += [f"molam-try {Path(of).name}" for place, of in strangers.tried_places().items() if place in told]
    return [entry for entry in checked if entry.what not in together] + others


def other_release(asked: str, serving: str) -> Iterator[Difference]:
    """Yield that the inventory names another release than the one that serves. Only a tag is one by its name."""
    if asked.startswith("v") and asked != serving:
        words = f"serves {serving or 'nothing'}, and webhook_app_release names {asked}"
        mend = "Run playbooks/deploy.yml (docs/runbooks/deploy.md), or name the release that is to serve."
        yield Difference(Kind.RELEASE, "the release", words, mend)


def of_certificates(said: Mapping[str, Any]) -> tuple[list[Difference], list[Expiring], list[str]]:
    """Return what differs in the certificates, which of them end soon, and which could not be read."""
    not_seen = []
    served = None
    try:
        served = expiry.fetch(said["address"], said["domain"])
    except (OSError, ValueError) as error:
        not_seen.append(f"The certificate that is served: {said['address']} port 443: {error}")
    given = []
    for variable, text in said["certificates"].items():
        file = expiry.Given(variable, text)
        try:
            given += [file] if text and file.read else []
        except ValueError as error:
            not_seen.append(f"{variable} holds no certificates that can be read: {error}")
    ending = list(expiry.certificates(served, given, renewed=bool(said["renewed"]), now=expiry.now()))
    return list(expiry.another(served, given)), ending, not_seen


def unknown(differences: Iterable[Difference], entries: object) -> list[Difference]:
    """Return the differences that ``verify_known`` does not name; raise ValueError where that can't be read.

    It names what others brought on purpose. What the playbook itself would change is not for it: that is said in the
    inventory.
    """
    faults = ValueError("verify_known wants a list of what and reason, and none of them empty: docs/verify.md.")
    if not isinstance(entries, list):
        raise faults
    names = set()
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"what", "reason"} or not all(entry.values()):
            raise faults
        names.add(str(entry["what"]))
    others = (Kind.LISTENER, Kind.UNIT, Kind.PACKAGE)
    return [entry for entry in differences if entry.kind not in others or entry.what not in names]
