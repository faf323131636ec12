"""Certificates for tests, of authorities that each test makes for itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness import HOST

DAY = timedelta(days=1)


@dataclass
class Authority:
    """A CA, whose certificate is in a file."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        is_ca = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(self.subject, self.key).add_extension(is_ca, critical=True)
        self.path = self._write(f"{self.name}.crt", builder)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.subject)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - DAY).not_valid_after(now + 60 * DAY)

    def _write(self, name: str, builder: x509.CertificateBuilder) -> Path:
        path = self.folder / name
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def _issue(
        self, name: str, subject: x509.Name, usage: x509.ObjectIdentifier, *names: x509.GeneralName
    ) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(subject, key).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        key_path = self.folder / f"{name}.key"
        encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        key_path.write_bytes(key.private_bytes(*encoding))
        return str(self._write(f"{name}.crt", builder)), str(key_path)

    def server(self, *names: x509.GeneralName, name: str = "server") -> tuple[str, str]:
        """Certificate and key of a server with these names, or of this machine."""
        names = names or (x509.IPAddress(ip_address(HOST)), x509.DNSName("localhost"))
        return self._issue(name, x509.Name([]), ExtendedKeyUsageOID.SERVER_AUTH, *names)

    def client(self, common_name: str, organization: str) -> tuple[str, str]:
        attributes = [(NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common_name)]
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
        return self._issue(common_name, subject, ExtendedKeyUsageOID.CLIENT_AUTH)
