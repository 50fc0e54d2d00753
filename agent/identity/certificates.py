"""Makes the CA and the certificates of agents and controllers, for clusters without cert-manager. Pure but for chance.

Everything is PEM; time is an argument. Where the results go, to files or to Secrets, is others' business.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.identity.tls import Identity

CA_LIFE = datetime.timedelta(days=3650)
LIFE = datetime.timedelta(days=90)
RENEW_LEFT = datetime.timedelta(days=30)
_EARLIER = datetime.timedelta(hours=1)  # clocks differ


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA. Whoever has its key can pose as any agent and any controller."""

    certificate: bytes
    key: bytes


def make_authority(now: datetime.datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Sonde CA")
    builder = (
        _builder(name, name, key, now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return Authority(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def make_identity(authority: Authority, role: str, now: datetime.datetime) -> Identity:
    """A new key and certificate for a role (agent.tls.AGENT or CONTROLLER)."""
    ca = x509.load_pem_x509_certificate(authority.certificate)
    ca_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(_name(role), ca.subject, key, now, LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(role)]), critical=False)
    )
    return Identity(authority.certificate, _pem(builder.sign(ca_key, hashes.SHA256())), _key_pem(key))


def is_due(identity: Identity | None, authority: Authority, now: datetime.datetime) -> bool:
    """Whether an identity is to be made: there is none, it ends soon, or it is of another CA."""
    if identity is None or identity.ca != authority.certificate:
        return True
    try:
        certificate = x509.load_pem_x509_certificate(identity.certificate)
    except ValueError:
        return True
    return ends(certificate) - now < RENEW_LEFT


def ends(certificate: x509.Certificate) -> datetime.datetime:
    """In UTC, on old and new versions of the library."""
    aware = getattr(certificate, "not_valid_after_utc", None)
    return aware or certificate.not_valid_after.replace(tzinfo=datetime.UTC)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + life)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sonde"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
