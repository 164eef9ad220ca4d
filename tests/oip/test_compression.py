"""Content codings: what is negotiated, and bodies that are corrupt, cut or bombs."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.oip.compression import accepted_encoding, compress, decompress
from service.oip.errors import ProtocolError

LIMIT_BYTES = 10_000


def fault(body: bytes, encoding: str) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decompress(body, encoding, LIMIT_BYTES)
    return caught.value


@pytest.mark.parametrize("encoding", ["", "identity", " identity "])
def test_an_uncompressed_body_stays_as_it_is(encoding: str) -> None:
    """No coding, said or unsaid."""
    assert decompress(b"abc", encoding, LIMIT_BYTES) == b"abc"


@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]))
def test_bodies_survive_the_standard_librarys_codings(body: bytes, encoding: str) -> None:
    """What the standard library packs is read, and the other way round."""
    pack, unpack = (gzip.compress, gzip.decompress) if encoding == "gzip" else (zlib.compress, zlib.decompress)
    assert decompress(pack(body), encoding, LIMIT_BYTES) == body
    assert unpack(compress(body, encoding, least_bytes=0)[0]) == body


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd", "\x00" * 500])
def test_an_unknown_coding_is_415(encoding: str) -> None:
    """The message names what is understood."""
    error = fault(b"abc", encoding)
    assert error.status == 415
    assert error.message.startswith("header content-encoding: expected gzip, deflate or identity, got '")
    assert len(error.message) < 500


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_413(encoding: str) -> None:
    """A gigabyte of zeros is given up at the limit; the limit itself is allowed."""
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    assert fault(pack(b"\x00" * 100_000_000), encoding).status == 413
    assert fault(pack(b"\x00" * (LIMIT_BYTES + 1)), encoding).status == 413
    assert len(decompress(pack(b"\x00" * LIMIT_BYTES), encoding, LIMIT_BYTES)) == LIMIT_BYTES


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("kind", ["empty", "noise", "cut", "flipped", "trailing"])
def test_a_corrupt_body_is_400(encoding: str, kind: str) -> None:
    """Noise, truncation, a wrong checksum and trailing bytes are the caller's fault."""
    packed = (gzip.compress if encoding == "gzip" else zlib.compress)(b"some body " * 20)
    last = packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:]
    wrong_sum = packed[:-1] + bytes([packed[-1] ^ 1])
    body = {
        "empty": b"",
        "noise": b"no such format",
        "cut": packed[:-3],
        "flipped": last if encoding == "gzip" else wrong_sum,
        "trailing": packed + b"!",
    }[kind]
    error = fault(body, encoding)
    assert error.status == 400
    assert error.message.startswith(f"body: expected {encoding} data, got ")


@given(st.binary(max_size=200), st.sampled_from(["gzip", "x-gzip", "deflate"]))
def test_no_body_breaks_decompression(body: bytes, encoding: str) -> None:
    """Random bytes are refused as the caller's fault, or happen to be sound."""
    status = 200
    try:
        decompress(body, encoding, 100)
    except ProtocolError as error:
        status = error.status
    assert status in (200, 400, 413)


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0", None),
        ("gzip; q=0, deflate", "deflate"),
        ("br, zstd", None),
        ("identity", None),
        ("*", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("gzip;q=2", None),
        ("gzip;q=nan", None),
        ("gzip;q=", None),
        ("gzip;x=1", None),
        (",;,=", None),
    ],
)
def test_weights_choose_the_coding(header: str, chosen: str | None) -> None:
    """A coding is used only where it is named and wanted no less than none at all."""
    assert accepted_encoding(header) == chosen


def test_short_answers_are_not_compressed() -> None:
    """Compression that saves nothing is left out."""
    assert compress(b"a" * 100, "gzip") == (b"a" * 100, None)
    assert compress(b"a" * 5000, "br") == (b"a" * 5000, None)
    assert compress(b"a" * 5000, "gzip")[1] == "gzip"
