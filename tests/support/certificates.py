"""Certificate authorities of one test, and what they sign for loopback."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Authority", "Certificate"]

LOOPBACK = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
PURPOSES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate and of its private key."""

    certificate_file: Path
    key_file: Path


class Authority:
    """A CA that trusts no other one and that no other one trusts.

    Args:
        directory: where its certificate and those that it signs go.
    """

    def __init__(self, directory: Path, name: str = "test CA") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._issued = 0
        self.ca_file = directory / f"{name.replace(' ', '-')}.pem"
        certificate = (
            self._builder(self._key.public_key(), self._name, days=1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs_others=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file.write_bytes(pem(certificate))

    def issue(
        self,
        name: str,
        *,
        valid_for: tuple[x509.GeneralName, ...] = LOOPBACK,
        expired: bool = False,
        passphrase: str = "",
    ) -> Certificate:
        """Sign a certificate for servers and clients alike."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(key.public_key(), subject, days=-1 if expired else 1)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_others=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(PURPOSES), critical=False)
            .add_extension(x509.SubjectAlternativeName(valid_for), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._issued += 1
        stem = self._directory / f"{name}-{self._issued}"
        issued = Certificate(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        issued.certificate_file.write_bytes(pem(certificate))
        issued.key_file.write_bytes(private_pem(key, passphrase))
        return issued

    def _builder(
        self, key: ec.EllipticCurvePublicKey, subject: x509.Name, *, days: int
    ) -> x509.CertificateBuilder:
        end = dt.datetime.now(dt.UTC) + days * DAY
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder(issuer_name=self._name, subject_name=subject, public_key=key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - 2 * DAY)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(issuer_id, critical=False)
        )


def key_usage(*, signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey, passphrase: str) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
