"""What a failed command says leads to the advice that fits, and the documentation has it too."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """Return molam-certificate as a module."""
    loader = SourceFileLoader("molam_certificate", str(ROOT / "roles" / "certbot" / "files" / "molam-certificate"))
    spec = spec_from_loader("molam_certificate", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("urn:ietf:params:acme:error:rateLimited :: There were too many requests", "The CA's limit is reached."),
        (
            "An unexpected error occurred:\ntoo many certificates (5) already issued, retry after 2030-01-01",
            "The CA's limit",
        ),
        ("  Type:   dns\n  Detail: DNS problem: NXDOMAIN looking up A for shop.test", "A name does not lead here"),
        ("  Type:   caa\n  Detail: CAA record for shop.test prevents issuance", "The DNS forbids this CA."),
        ("  Type:   connection\n  Detail: 198.51.100.1: Timeout during connect", "The CA's question did not get here."),
        (
            "  Type:   unauthorized\n  Detail: Invalid response from http://x: 404",
            "The CA's question did not get here.",
        ),
        ("urn:ietf:params:acme:error:invalidProfile :: no such profile", "The CA has no such profile."),
        ("Max retries exceeded (Caused by SSLError(CERTIFICATE_VERIFY_FAILED))", "The CA's server is not known here."),
        ("Max retries exceeded (Caused by NameResolutionError(...))", "This host does not find the CA by its name."),
        ("Max retries exceeded: [Errno 113] No route to host", "The CA is not reached."),
        ("HTTPSConnectionPool: Read timed out. (read timeout=45)", "The CA is not reached."),
        ("SSL_CTX_use_PrivateKey() failed (SSL: key values mismatch)", "Certificate and key do not belong together."),
        ("Another instance of Certbot is already running.", "certbot runs already."),
    ],
)
def test_advice_comes_first(program: ModuleType, said: str, advice: str) -> None:
    with pytest.raises(program.Failed) as failed:
        program.run("/bin/sh", "-c", f"echo '{said}' && false")
    lines = str(failed.value).splitlines()
    assert lines[0].startswith(advice)
    assert lines[1] == "/bin/sh -c failed:"


def test_no_advice_is_better_than_a_wrong_one(program: ModuleType) -> None:
    with pytest.raises(program.Failed, match=r"^/bin/sh -c failed:\n  what nobody knows$"):
        program.run("/bin/sh", "-c", "echo 'Saving debug log to x'; echo; echo what nobody knows; exit 1")


def test_documentation_has_each_advice(program: ModuleType) -> None:
    text = (ROOT / "docs" / "certificates.md").read_text()
    assert [advice for advice in program.ADVICE.values() if advice.partition(".")[0] not in text] == []
