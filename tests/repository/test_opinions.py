"""What outside tools say is read as they said it, and each finding is answered or shown.

The samples are what the tools said of test hosts, shortened.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.verify.opinions import answers, ask, debsecan, lynis, openscap, ssh_audit, systemd_analyze, testssl
from tests.verify.opinions.opinion import Finding, NoOpinionError, Opinion
from tests.verify.target import VerifyError

SAMPLES = Path(__file__).parent / "opinions"
PLACE = ask.Place("198.51.100.7", "hooks.shop.test", 22, None, "13", frozenset())
TOOLS = list(ask.TOOLS)


def sample(name: str) -> str:
    return (SAMPLES / name).read_text()


def texts(opinion: Opinion) -> dict[str, str]:
    return {finding.id: finding.text for finding in opinion.unanswered}


class Bare:
    """A host that has what its commands are said to answer, and no tool."""

    def __init__(self, **said: str) -> None:
        self.ran: list[str] = []
        self._said = said

    def run(self, command: str, *arguments: str) -> SimpleNamespace:
        self.ran.append(command % arguments if arguments else command)
        said = next((said for word, said in self._said.items() if word in self.ran[-1]), None)
        return SimpleNamespace(rc=127 if said is None else 0, stdout=said or "", stderr="cut off")

    def file(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(exists=False)


def test_every_answer_says_why_and_each_finding_has_one() -> None:
    for tool, entries in answers.of_all().items():
        ids = Counter(name for entry in entries for name in entry.ids)
        assert [name for name, count in ids.items() if count > 1] == []
        assert [entry.ids for entry in entries if not entry.why.strip() or not entry.ids] == []
        assert {entry.only for entry in entries} <= {"", ask.CONTAINER}
        assert tool in TOOLS


def test_a_finding_has_an_answer_or_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [
        answers.Answer(("A",), "because"),
        answers.Answer(("B",), "not on a machine", only="container"),
        answers.Answer(("C",), "as far as it goes", at_most=2.5),
    ]
    monkeypatch.setattr(answers, "of_all", lambda: {"some": known})
    scored = [Finding("C", "closed", score=2.5), Finding("C", "open", score=2.6), Finding("C", "not measured")]
    opinion = Opinion("some", unanswered=[Finding("A", "a"), Finding("B", "b"), Finding("D", "d"), *scored])
    seen = answers.answered(opinion, kinds=())
    assert seen.unfollowed == [Finding("A", "a", "because"), replace(scored[0], why="as far as it goes")]
    assert seen.unanswered == [Finding("B", "b"), Finding("D", "d"), *scored[1:]]
    assert Finding("B", "b", "not on a machine") in answers.answered(opinion, kinds={"container"}).unfollowed
    # Another tool's answers are no answers.
    assert answers.answered(replace(opinion, tool="other"), kinds=()) == replace(opinion, tool="other")


def test_lynis() -> None:
    opinion = lynis.read(sample("lynis.dat"))
    assert (opinion.tool, opinion.version, opinion.figure) == ("lynis", "3.1.4", "hardening index 74 of 100")
    # Of sshd's settings each is one, and two lines of one test are two findings.
    sshd = {f"SSH-7408 {setting}" for setting in ("ClientAliveCountMax", "MaxSessions", "Port")}
    assert texts(opinion).keys() == {"DEB-0280", "AUTH-9286", "LOGG-2154", "TIME-3104", *sshd}
    assert texts(opinion)["SSH-7408 MaxSessions"] == "Consider hardening SSH configuration (MaxSessions (set 10 to 2))"
    assert (len(opinion.unanswered), opinion.followed) == (8, 258 - 5)
    # What a container has not, a machine has to have.
    assert texts(answers.answered(opinion, kinds=())).keys() == {"TIME-3104"}
    assert answers.answered(opinion, kinds={"container"}).unanswered == []


def test_lynis_warns() -> None:
    """No answer to a suggestion fits a warning of the same test."""
    said = sample("lynis.dat") + "warning[]=LOGG-2154|No logs at all|-|-|\n"
    assert texts(answers.answered(lynis.read(said), kinds=()))["warning LOGG-2154"] == "No logs at all"


def test_lynis_that_was_cut_off() -> None:
    with pytest.raises(NoOpinionError, match="did not come to its end"):
        lynis.read(sample("lynis.dat").replace("hardening_index=", "x="))


def test_testssl() -> None:
    opinion = testssl.read(sample("testssl.json"), "\n  \x1b[1mtestssl\x1b[m version \x1b[1m3.2.1\x1b[m from there\n")
    assert (opinion.version, opinion.figure, opinion.followed) == ("3.2.1", "grade A+", 4)
    assert texts(opinion) == {
        "engine_problem": "WARN: No engine or GOST support via engine with your /usr/bin/openssl",
        "cert_revocation": "HIGH: Neither CRL nor OCSP URI provided",
    }


def test_testssl_that_does_not_grade() -> None:
    entries = [entry for entry in json.loads(sample("testssl.json")) if entry["id"] != "overall_grade"]
    opinion = testssl.read(json.dumps(entries), "\n    testssl.sh       3.0.8 from https://testssl.sh/\n")
    assert opinion.version == "3.0.8"
    assert opinion.figure.startswith("no grade: testssl.sh gives one from 3.2 on")


@pytest.mark.parametrize("found", ["", "[]", '[{"id": "scanProblem", "severity": "FATAL", "finding": "no TLS"}]'])
def test_testssl_that_did_not_get_there(found: str) -> None:
    with pytest.raises(NoOpinionError, match="the host was not tested: "):
        testssl.read(found, "")


def test_ssh_audit() -> None:
    opinion = ssh_audit.read(sample("ssh-audit.json"), "3.9.0")
    assert opinion == Opinion("ssh-audit", "3.9.0", "passes the policy Hardened Debian 13 (version 1)")


def test_ssh_audit_finds_something() -> None:
    opinion = ssh_audit.read(sample("ssh-audit-failed.json"), "3.9.0")
    assert opinion.figure == "does not pass the policy Hardened Debian 12 (version 3)"
    assert texts(opinion) == {"Host keys": "is ssh-ed25519; wanted: ssh-ed25519, rsa-sha2-512, rsa-sha2-256"}


@pytest.mark.parametrize("said", ["", "[exception] cannot connect", "{}"])
def test_ssh_audit_that_did_not_get_there(said: str) -> None:
    with pytest.raises(NoOpinionError, match="the host was not audited: "):
        ssh_audit.read(said, "3.9.0")


def test_ssh_audit_knows_no_policy_for_other_releases() -> None:
    with pytest.raises(NoOpinionError, match="Debian 14"):
        ssh_audit.command("198.51.100.7", 22, "14")


def test_debsecan() -> None:
    opinion = debsecan.read(sample("debsecan.txt"), "0.4.20.1")
    assert opinion.figure == "5 open CVEs: 2 with a fix in Debian, 1 of high urgency without one"
    assert texts(opinion) == {
        "bash": "the fix of CVE-2026-1111 is in Debian",
        "openssl": "the fix of CVE-2026-2222 is in Debian",
        "CVE-2026-5555": "of high urgency, with no fix yet: nginx, nginx-common",
        "unfixed": "2 CVEs with no fix in Debian yet: libc-bin 2, libc6 2",
    }
    assert texts(answers.answered(opinion, kinds=())).keys() == {"bash", "openssl", "CVE-2026-5555"}


def test_debsecan_finds_nothing() -> None:
    opinion = debsecan.read("", "0.4.20.1")
    assert opinion.figure == "0 open CVEs: 0 with a fix in Debian, 0 of high urgency without one"
    assert opinion.unanswered == []


def test_debsecan_without_its_data() -> None:
    with pytest.raises(NoOpinionError, match=r"not reached \(error: .* not known\): .* SOURCE in its /etc/default/"):
        debsecan.read(sample("debsecan-unreached.txt"), "0.4.20.1")


def test_systemd_analyze() -> None:
    opinion = systemd_analyze.read(sample("systemd-analyze.txt"))
    assert opinion.version == "257"
    assert opinion.figure == "1.0 at most of our 3 services (molam-check), where 0 is closed and 10 is open"
    assert texts(opinion) == {"cron": "cron has 9.6", "nginx": "nginx has 2.6", "user@": "user@0 has 9.8"}
    assert texts(answers.answered(opinion, kinds=())) == {}
    # What is answered is answered up to its score alone.
    worse = sample("systemd-analyze.txt").replace(" 2.6 ", " 2.7 ")
    assert texts(answers.answered(systemd_analyze.read(worse), kinds=())) == {"nginx": "nginx has 2.7"}


def test_systemd_analyze_of_a_host_of_others() -> None:
    with pytest.raises(NoOpinionError, match="no service of ours"):
        systemd_analyze.read("systemd 257 (257)\nssh.service 9.6 UNSAFE x\n")


def test_openscap() -> None:
    opinion = openscap.read(sample("openscap.txt"))
    assert opinion.version == "1.3.7"
    assert (opinion.figure, opinion.followed) == ("33 % of the rules of anssi_bp28_enhanced (1 of 3)", 1)
    assert texts(opinion) == {
        "prefer_64bit_os": "Prefer to use a 64-bit Operating System when supported",
        "sudo_add_noexec": "Ensure Privileged Escalated Commands Cannot Execute Other Commands - sudo NOEXEC",
    }


def test_openscap_that_did_not_evaluate() -> None:
    with pytest.raises(NoOpinionError, match=r"(?s)did not evaluate the rules: .*No such profile"):
        openscap.read("OpenSCAP command line tool (oscap) 1.4.1\nOpenSCAP Error: No such profile\n")


def test_all_tools_are_asked_or_those_that_are_named() -> None:
    assert ask.chosen("") == TOOLS
    assert ask.chosen("ssh-audit, lynis,ssh-audit") == ["ssh-audit", "lynis"]
    with pytest.raises(VerifyError, match=r"--opinions: there is no nmap, no nessus\. There are: lynis, "):
        ask.chosen("lynis,nmap,nessus")


@pytest.mark.parametrize(
    ("tool", "note"),
    [
        ("lynis", "not installed on the host: package lynis"),
        ("debsecan", "not installed on the host: package debsecan"),
        ("openscap", "not installed on the host: package openscap-scanner"),
    ],
)
def test_what_is_not_installed_on_the_host_is_told(tool: str, note: str) -> None:
    host: Any = Bare()
    assert ask.opinion(tool, host, PLACE) == Opinion(tool, note=note)
    assert [command for command in host.ran if "systemd-run" in command] == []


def test_what_is_not_installed_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    host: Any = Bare()
    monkeypatch.setenv("PATH", "/nowhere")
    assert ask.opinion("testssl.sh", host, PLACE).note == "not installed here: package testssl.sh"


def test_rules_that_are_nowhere_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host: Any = Bare(oscap="/usr/bin/oscap")
    monkeypatch.setattr(openscap, "CONTENT", f"{tmp_path}/ssg-debian{{debian}}-ds.xml")
    assert ask.opinion("openscap", host, PLACE).note.startswith("there is no ssg-debian13-ds.xml on the host or here")


def test_what_is_cut_off_is_told() -> None:
    """What was printed until then is no opinion."""
    host: Any = Bare(lynis=sample("lynis.dat"))
    note = "it did not come to its end, for which it has 600 s: cut off"
    assert ask.opinion("lynis", host, PLACE) == Opinion("lynis", note=note)
    host = Bare(lynis=sample("lynis.dat") + ask.ENDED)
    assert ask.opinion("lynis", host, PLACE).figure == "hardening index 74 of 100"
