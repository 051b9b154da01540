"""Network keys: how they are made and typed, what is made of them, and that OpenSSL finds it right."""

import contextlib
import datetime
import hashlib
import random
import shutil
import ssl
import subprocess

import pytest

from disk import credentials
from disk.credentials import credentials_of, made_of, try_out
from protocol.credentials import Credentials, KeyTrouble
from protocol.keys import certificates, curve, phrase

KEY = "h6xog-xq3vg-46brm-qtkkp-m5y4s-lzt7k"
SEAL_KEY = "5f02c7a1d86a2e5b3e1a0cf4beafa7b5b586a22f919fceac9d11b6f098c96c41"
AUTHORITY = "2815a01bf4dc916fd8a9c32d7cf2682778a33181c09754d6eb7cd079624d52d2"
CODE = "cdf5"
POINT = (
    "04fd76cea3053cc301501a39a8ce8f75f1fb259e0ba11f982af6b9845cc07eac8f"
    "754ed7775599ed5e23a912f48a000ae8e96766d1646cdc2bb46348263b2a84f4"
)
AUTHORITY_DIGEST = "875fe7c65a8ead797a1fbdec5cf76e853f0d946c87b3313a1435ff4997d90a11"
TAG = "9f156731b5b9b5ed11c0b5f13383ab00"


def a_key(seed):
    """A stretched key, without the time that stretching takes."""
    return phrase.parted(random.Random(seed).randbytes(82))


# ---- how a key is made and typed


def test_a_made_key_has_six_groups_of_five():
    made = phrase.new_key(random.Random(1))
    assert [len(group) for group in made.split("-")] == [5] * 6
    assert set(made) <= set(phrase.ALPHABET + "-")
    assert phrase.typed_key(made) == made


def test_no_two_made_keys_are_alike_and_each_bit_counts():
    drawn = [phrase.new_key(random.Random(seed)) for seed in range(200)]
    assert len(set(drawn)) == 200
    for place in range(26):
        assert len({made.replace("-", "")[place] for made in drawn}) > 24


def test_a_made_key_is_understood_as_people_write_it():
    for written in (KEY.upper(), KEY.replace("-", " "), KEY.replace("-", ""), f"  {KEY}\n", KEY.replace("-", " - ")):
        assert phrase.typed_key(written) == KEY
    made = next(key for seed in range(99) if {"o", "l", "b"} <= set(key := phrase.new_key(random.Random(seed))))
    assert phrase.typed_key(made.replace("o", "0").replace("l", "1").replace("b", "8")) == made


def test_each_slip_in_a_made_key_is_told():
    for place, character in enumerate(KEY):
        if character != "-":
            slip = KEY[:place] + ("a" if character != "a" else "b") + KEY[place + 1 :]
            with pytest.raises(KeyTrouble, match="a slip in it"):
                phrase.typed_key(slip)
            with pytest.raises(KeyTrouble, match="a slip in it"):
                phrase.typed_key(KEY[:place] + KEY[place + 1 :])


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "empty"),
        (" \t ", "empty"),
        ("fifteen letters", "at least 16 characters"),
        ("x" * 1025, "longer than 1024 bytes"),
        ("\u20ac" * 342, "longer than 1024 bytes"),
        ("two lines of\nsome length", "one line"),
        ("with a \x1b[31m sequence", "one line"),
        ("half a character \udcff", "no text in UTF-8"),
    ],
)
def test_what_is_no_key_is_told_in_a_sentence_without_it(text, sentence):
    with pytest.raises(KeyTrouble, match=sentence) as told:
        phrase.typed_key(text)
    assert not text.strip() or text.strip() not in str(told.value)


def test_a_phrase_is_one_however_its_characters_are_composed():
    composed, parts = "caf\u00e9 au lait, une fois", "cafe\u0301 au lait, une fois"
    assert phrase.typed_key(composed) == phrase.typed_key(parts) == composed
    assert phrase.typed_key("Sixteen letters!") == "Sixteen letters!"
    assert phrase.typed_key("apple table chair water house green") == "apple table chair water house green"


# ---- what is made of it: the same for ever, or nodes of two versions do not meet


def test_a_key_is_stretched_to_what_it_always_was():
    key = phrase.stretched(phrase.typed_key(KEY))
    assert key.seal_key.hex() == SEAL_KEY
    assert f"{key.authority:064x}" == AUTHORITY
    assert key.check_code == CODE
    assert curve.encoded(curve.public_point(key.authority)).hex() == POINT
    assert hashlib.sha256(certificates.authority_certificate(key.authority)).hexdigest() == AUTHORITY_DIGEST
    assert hashlib.blake2b(b"datagram", key=key.seal_key, digest_size=16).hexdigest() == TAG


def test_points_and_signatures_are_those_of_rfc_6979():
    """Appendix A.2.5: P-256, SHA-256."""
    private = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    assert curve.public_point(private) == (
        0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6,
        0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299,
    )
    assert curve.signature(private, hashlib.sha256(b"sample").digest()) == (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )
    assert curve.signature(private, hashlib.sha256(b"test").digest()) == (
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    )


def test_points_of_small_and_of_large_numbers():
    assert curve.public_point(1) == curve.BASE
    x, y = curve.public_point(curve.ORDER - 1)
    assert (x, y) == (curve.BASE[0], curve.PRIME - curve.BASE[1])
    constant = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    for factor in (2, 3, curve.ORDER - 2, curve.ORDER // 2):
        x, y = curve.public_point(factor)
        assert (y * y - x**3 + 3 * x - constant) % curve.PRIME == 0


# ---- what OpenSSL finds


def test_what_python_computes_openssl_finds_right():
    for seed in range(5):
        made = made_of(a_key(seed))  # its context compares key and point, and it shakes hands with itself
        assert (len(made.seal_key), len(made.fingerprint), len(made.check_code)) == (32, 32, 4)


@pytest.mark.parametrize("private", [1, 2, curve.ORDER - 1, 1 << 255, (1 << 248) - 1])
def test_keys_at_the_borders_are_found_right(private):
    assert made_of(a_key(1), private).fingerprint != made_of(a_key(1)).fingerprint


def test_a_wrong_point_is_found_by_openssl(monkeypatch):
    right = curve.public_point
    monkeypatch.setattr(curve, "public_point", lambda private: right(private % curve.ORDER + 1))
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH|key values mismatch"):
        made_of(a_key(1), 7)


def test_a_wrong_signature_is_found_by_the_handshake_with_itself(monkeypatch):
    right = curve.signature
    monkeypatch.setattr(curve, "signature", lambda private, digest: right(private, digest[::-1]))
    with pytest.raises(ssl.SSLError):
        made_of(a_key(1))


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program here")
def test_the_openssl_program_agrees():
    own = certificates.node_certificate(a_key(1).authority, 12345)
    key, certificate = own.as_pem().split(b"-----BEGIN CERTIFICATE-----")
    asked = ["openssl", "ec", "-pubout", "-outform", "DER"]
    told = subprocess.run(asked, input=key, capture_output=True, check=True).stdout
    assert told.endswith(curve.encoded(curve.public_point(12345)))
    asked = ["openssl", "x509", "-noout", "-text"]
    pem = b"-----BEGIN CERTIFICATE-----" + certificate
    text = subprocess.run(asked, input=pem, capture_output=True, check=True).stdout.decode()
    for line in ("Not Before: Jan  1 00:00:00 1970", "Not After : Dec 31 23:59:59 9999", "CA:FALSE", "Issuer: CN=net"):
        assert line in text.replace(" = ", "="), line


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program here")
def test_the_openssl_program_verifies_the_chain_by_its_strictest_rules(tmp_path):
    authority, own = certificates.authority_certificate(77), certificates.node_certificate(77, 78)
    (tmp_path / "net.pem").write_text(ssl.DER_cert_to_PEM_cert(authority))
    (tmp_path / "own.pem").write_text(ssl.DER_cert_to_PEM_cert(own.certificate))
    for purpose in ("sslserver", "sslclient"):
        asked = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose]
        told = subprocess.run([*asked, "-CAfile", "net.pem", "own.pem"], cwd=tmp_path, capture_output=True, text=True)
        assert told.stdout == "own.pem: OK\n", told


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext):
    """What the client's end says of the server, once both are through; what either raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0]


def test_members_know_each_other_and_when_does_not_matter():
    ana, bo = made_of(a_key(1)), made_of(a_key(1))
    end = shake_hands(ana.client_context, bo.server_context)
    assert end.version() == "TLSv1.3"
    assert hashlib.sha256(end.getpeercert(binary_form=True)).digest() == bo.fingerprint != ana.fingerprint
    told = end.getpeercert()
    assert told["notBefore"] == "Jan  1 00:00:00 1970 GMT" and told["notAfter"] == "Dec 31 23:59:59 9999 GMT"
    for year in (1970, 2030, 2100):
        clock = datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc).timestamp()
        assert ssl.cert_time_to_seconds(told["notBefore"]) <= clock <= ssl.cert_time_to_seconds(told["notAfter"])


def test_who_has_another_key_is_refused_by_either_end():
    ana, stranger = made_of(a_key(1)), made_of(a_key(2))
    for client, server in ((ana, stranger), (stranger, ana)):
        with pytest.raises(ssl.SSLError):
            shake_hands(client.client_context, server.server_context)


def test_who_has_no_certificate_or_another_authority_is_refused():
    server = made_of(a_key(1)).server_context
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match="CERTIFICATE"):
        shake_hands(client, server)
    for context in (server, made_of(a_key(1)).client_context):
        assert [told["subject"] for told in context.get_ca_certs()] == [((("commonName", "net"),),)]
        assert context.verify_mode is ssl.CERT_REQUIRED and context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert server.num_tickets == 0


def test_a_kept_key_keeps_its_fingerprint_in_its_network_only():
    fingerprints = [made_of(a_key(seed), private).fingerprint for seed in (1, 2) for private in (5, 5, 6)]
    assert fingerprints[0] == fingerprints[1] and fingerprints[3] == fingerprints[4]
    assert len(set(fingerprints)) == 4


# ---- no file stays, and no secret is in sight


@pytest.mark.parametrize("has_memory_files", [True, False])
def test_no_file_of_the_private_key_stays(tmp_path, monkeypatch, has_memory_files):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []
    right = credentials._context

    def watched(*said):
        seen.append(list(tmp_path.iterdir()))
        return right(*said)

    monkeypatch.setattr(credentials, "_context", watched)
    if not has_memory_files:
        monkeypatch.delattr("os.memfd_create", raising=False)
    try_out(made_of(a_key(1)))
    assert list(tmp_path.iterdir()) == []
    if not has_memory_files:
        assert len(seen) == 2 and len(seen[0]) == 1


def test_what_is_shown_of_credentials_is_no_secret():
    made = made_of(a_key(1))
    assert isinstance(made, Credentials)
    assert repr(made.seal_key) not in repr(made) and made.check_code in repr(made)


# ---- a Python that cannot


def test_a_python_that_cannot_says_why(monkeypatch):
    for target, name, value, why in (
        ("ssl", "HAS_TLSv1_3", False, "it has no TLS 1.3"),
        ("hashlib", "scrypt", None, "it has no scrypt"),
    ):
        with monkeypatch.context() as patch:
            patch.delattr(f"{target}.{name}") if value is None else patch.setattr(f"{target}.{name}", value)
            with pytest.raises(KeyTrouble, match=f"This Python .* cannot keep a network private: {why}.* does as well"):
                credentials_of(KEY)


def test_rules_that_forbid_scrypt_and_too_little_memory_are_told(monkeypatch):
    def refused(*_, **__):
        raise ValueError("[digital envelope routines] unsupported")

    monkeypatch.setattr("hashlib.scrypt", refused)
    with pytest.raises(KeyTrouble, match="FIPS"):
        credentials_of(KEY)
    monkeypatch.setattr("hashlib.scrypt", lambda *_, **__: bytes(1 << 60))
    with pytest.raises(KeyTrouble, match="too little memory"):
        credentials_of(KEY)
