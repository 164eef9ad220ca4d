"""API keys: what callers show, who is let in, and how keys are written down."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import cli
from service.access import ANYBODY, EVERY_ROLE, LONGEST_SECRET, Access, Key, Keys, Role, shown_secret
from service.gate import open_paths, role_for
from service.key_file import KeysError, holds_plain_secrets_for_all, read_keys
from service.oip.errors import ProtocolError

WEB, OPS, WATCH = "web-secret-0123456789", "ops-secret-0123456789", "watch-secret-0123456789"
FILE = f"""
# who may what
web    {WEB}  tenant=acme      # the shop
watch  {WATCH}  role=read
ops    sha256:{sha256(OPS.encode()).hexdigest()} role=admin
"""


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """The three keys of the file."""
    path = tmp_path / "keys"
    path.write_text(FILE)
    found = read_keys(path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([("authorization", "Bearer abc")], b"abc"),
        ([("authorization", "bearer   abc ")], b"abc"),
        ([("authorization", "BEARER abc")], b"abc"),
        ([("authorization", "Basic abc")], None),
        ([("authorization", "Bearer")], None),
        ([("authorization", "Bearer ")], None),
        ([("authorization", "Bearerabc")], None),
        ([("x-api-key", "abc")], b"abc"),
        ([("x-api-key", "")], None),
        ([("authorization", "Basic abc"), ("x-api-key", "def")], b"def"),
        ([("authorization", "Bearer abc"), ("x-api-key", "abc")], b"abc"),
        ([("authorization", "Bearer abc"), ("x-api-key", "def")], None),
        ([("x-api-key", "abc"), ("x-api-key", "def")], None),
        ([("x-api-key", "abc"), ("x-api-key", "")], None),
    ],
)
def test_a_caller_shows_one_secret(headers: list[tuple[str, str]], expected: bytes | None) -> None:
    """As a bearer token or by its own header; two that differ are none, other schemes are somebody else's."""
    assert expected == shown_secret([(name.encode(), value.encode()) for name, value in headers])


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"host"]), st.binary(max_size=40))))
def test_any_header_is_read_or_left(headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever bytes come, a secret that is found stands in one of the headers, and all that are shown are it."""
    found = shown_secret(headers)
    if found is not None:
        assert found
        assert any(found in value for name, value in headers if name != b"host")
        assert {found} == {value.strip(b" ") for name, value in headers if name == b"x-api-key"} | {found}


@given(st.binary(max_size=2 * LONGEST_SECRET))
def test_a_secret_that_nobody_has_lets_nobody_in(secret: bytes) -> None:
    """Whatever is shown: 401, in the same words as for no key at all."""
    access = Access(Keys([Key("web", EVERY_ROLE, digest=sha256(b"x" * LONGEST_SECRET).digest())]))
    with pytest.raises(ProtocolError) as wrong:
        access.admit(secret, Role.INFER)
    with pytest.raises(ProtocolError) as missing:
        access.admit(None, Role.INFER)
    assert (401, str(missing.value)) == (wrong.value.status, str(wrong.value))


def test_a_secret_that_begins_with_the_longest_is_wrong() -> None:
    """Only so much of what is shown is digested, and no more than that is right."""
    longest = b"x" * LONGEST_SECRET
    access = Access(Keys([Key("web", EVERY_ROLE, digest=sha256(longest).digest())]))
    assert "web" == access.admit(longest, Role.INFER).name
    with pytest.raises(ProtocolError):
        access.admit(longest + b"x", Role.INFER)


def test_without_keys_everybody_may_everything() -> None:
    """As it is without any setting."""
    access = Access(None)
    assert [ANYBODY] * 6 == [access.admit(secret, need) for secret in (None, b"x") for need in Role]


@pytest.mark.parametrize(
    ("secret", "may"),
    [(WEB, {Role.INFER}), (WATCH, {Role.READ}), (OPS, {*Role})],
)
def test_a_key_may_what_its_roles_say(keys: Keys, secret: str, may: set[Role]) -> None:
    """Inference unless the file says otherwise; `admin` may everything, and the rest is 403."""
    access = Access(keys)
    for need in Role:
        if need in may:
            assert access.admit(secret.encode(), need).name
        else:
            with pytest.raises(ProtocolError, match=f"does not have the role {need}") as refused:
                access.admit(secret.encode(), need)
            assert 403 == refused.value.status


def test_refusals_are_counted_by_status_and_role(keys: Keys) -> None:
    """So many labels and no more, whatever callers show."""
    access = Access(keys)
    for number in range(20):
        for need in Role:
            with pytest.raises(ProtocolError):
                access.admit(b"%d" % number, need)
    with pytest.raises(ProtocolError):
        access.admit(WEB.encode(), Role.ADMIN)
    assert {(401, role): 20 for role in Role} | {(403, Role.ADMIN): 1} == access.refusals


def test_a_key_may_be_of_a_tenant(keys: Keys) -> None:
    """Its requests are the tenant's; a key without one leaves that to the caller."""
    access = Access(keys)
    tenants = [access.admit(secret.encode(), Role.INFER).tenant for secret in (WEB, OPS)]
    assert ["acme", ""] == tenants


def test_keys_do_not_print_what_they_are_found_by(keys: Keys) -> None:
    """A key in a log line or an error has its name alone."""
    shown = repr(keys.find(WEB.encode()))
    assert "web" in shown
    assert "digest" not in shown


@pytest.mark.parametrize(
    ("arguments", "roles", "tenant"),
    [
        ((), {Role.INFER}, ""),
        (("--role", "infer,read"), {Role.INFER, Role.READ}, ""),
        (("--role", "admin"), {*Role}, ""),
        (("--tenant", "acme"), {Role.INFER}, "acme"),
    ],
)
def test_a_new_key_gets_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], roles: set[Role], tenant: str
) -> None:
    """What `pareto key` prints for the file lets in what it prints for the caller, who alone is told it."""
    assert 0 == cli.run(["key", "web", *arguments])
    printed = capsys.readouterr()
    path, secret = tmp_path / "keys", printed.err.split()[-1]
    path.write_text(printed.out)
    keys = read_keys(path)
    assert keys is not None
    found = keys.find(secret.encode())
    assert found is not None
    assert ("web", frozenset(roles), tenant) == (found.name, found.roles, found.tenant)
    assert secret not in printed.out


@pytest.mark.parametrize("arguments", [("we b",), ("#web",), ("web", "--role", "boss"), ("web", "--tenant", "a b")])
def test_a_key_that_could_not_be_written_down_is_not_made(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """One line that says what is expected."""
    assert 2 == cli.run(["key", *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pareto: expected ")


BAD = {
    "": "holds no API key",
    "# nothing": "holds no API key",
    "web": "line 1: expected NAME SECRET",
    "we:b SECRET0123456789": "line 1: expected NAME SECRET",
    "web SECRET": "line 1: expected as the secret 16 to 256",
    "web SECRET,0123456789": "line 1: expected as the secret 16 to 256",
    "web sha256:SECRET0123456789": "line 1: expected as the secret 16 to 256",
    "\nweb SECRET0123456789 role=SECRET": "line 2: expected as role= some of infer, read, admin",
    "web SECRET0123456789 role=": "line 1: expected as role= some of",
    "web SECRET0123456789 tenant=": "line 1: expected as tenant= 1 to 128",
    "web SECRET0123456789 SECRET": r"line 1: expected role=\.\.\. and tenant=\.\.\., once each",
    "web SECRET0123456789 role=read role=read": "once each",
    "web SECRET0123456789\nweb SECRET9876543210": "two keys have the name 'web'",
    "web SECRET0123456789\nshop SECRET0123456789": "keys 'web' and 'shop' have the same secret",
}


@pytest.mark.parametrize("content", BAD)
def test_a_fault_in_the_keys_is_one_line_without_their_content(tmp_path: Path, content: str) -> None:
    """File, line and what is expected there; never what stands there, which may be a secret."""
    path = tmp_path / "keys"
    path.write_text(content)
    with pytest.raises(KeysError, match=BAD[content]) as fault:
        read_keys(path)
    assert str(fault.value).startswith(f"{path}: ")
    assert "SECRET0" not in str(fault.value)
    assert "=SECRET" not in str(fault.value)
    assert 1 == len(str(fault.value).splitlines())


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8, or too large to be one: nobody is let in by mistake."""
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    for name, said in {"missing": "cannot read", ".": "cannot read", "odd": "UTF-8", "large": "at most"}.items():
        with pytest.raises(KeysError, match=said):
            read_keys(tmp_path / name)


def test_keys_come_from_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Divided by line ends or semicolons, beside those of a file; an empty variable is a fault, not an open door."""
    assert read_keys(None) is None
    monkeypatch.setenv("PARETO_API_KEYS", f"web {WEB}; ops {OPS} role=admin")
    path = tmp_path / "keys"
    path.write_text(f"watch {WATCH} role=read")
    alone, both = read_keys(None), read_keys(path)
    assert (2, 3) == (alone and len(alone), both and len(both))
    monkeypatch.setenv("PARETO_API_KEYS", "")
    with pytest.raises(KeysError, match="PARETO_API_KEYS: holds no API key"):
        read_keys(path)


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [(FILE, 0o644, True), (FILE, 0o640, False), (FILE.splitlines()[4], 0o644, False)],
)
def test_secrets_that_all_may_read_are_noticed(tmp_path: Path, content: str, mode: int, expected: bool) -> None:
    """Digests may be read by anybody."""
    path = tmp_path / "keys"
    path.write_text(content)
    path.chmod(mode)
    assert expected == holds_plain_secrets_for_all(path)


@pytest.mark.parametrize("path", ["/v2/models/a/infer", "/v2/models/a/versions/b/infer", "/classify", "/v2", "/x", ""])
def test_what_is_not_named_needs_a_key_for_inference(path: str) -> None:
    """Known or not: no path is open because somebody forgot it."""
    assert Role.INFER == role_for(path)
    assert path not in open_paths(("metrics", "page"))
