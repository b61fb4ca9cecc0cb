"""Finding Java, checking what was downloaded, finding libpython."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from contracts.errors import ServiceError
from contracts.settings import Settings
from local_stack import java, tools


def fake_java(folder: Path, release: str) -> Path:
    program = folder / "bin/java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (folder / "release").write_text(release)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"home": tmp_path / "home", "tools": tmp_path / "tools"})


def test_the_machines_own_java_is_taken(tmp_path: Path, settings: Settings) -> None:
    home = fake_java(tmp_path / "jdk", 'JAVA_VERSION="17.0.13"\n')
    assert java.ensure_java(settings, {"JAVA_HOME": str(home)}) == home
    assert java.ensure_java(settings, {"PATH": str(home / "bin")}) == home


@pytest.mark.parametrize("release", ['JAVA_VERSION="25"\n', 'JAVA_VERSION="1.8.0_392"\n'])
def test_a_java_that_spark_cannot_use_gives_way_to_the_wheel(
    tmp_path: Path, settings: Settings, release: str
) -> None:
    home = fake_java(tmp_path / "jdk", release)
    found = java.ensure_java(settings, {"JAVA_HOME": str(home), "PATH": ""})
    assert found == settings.tools / "java"
    version = subprocess.run(
        [found / "bin/java", "--add-modules=jdk.incubator.vector", "-version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert 'version "21' in version.stderr


def test_the_wheels_java_trusts_what_the_machine_trusts(tmp_path: Path) -> None:
    """An authority goes in as it is; what is no certificate is passed over."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a proxy's own authority")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, begin, begin.replace(year=2036)
    )
    authority = builder.sign(key, hashes.SHA256())
    der = authority.public_bytes(serialization.Encoding.DER)
    store = java.trust_store([der, b"no certificate"])
    found = pkcs12.load_pkcs12(store, java.STORE_PASSWORD.encode())
    assert [each.certificate for each in found.additional_certs] == [authority]
    assert java.trust_store([]) == b""


def test_a_missing_java_home_is_no_java(tmp_path: Path) -> None:
    assert java.java_major(tmp_path / "nothing") is None


def sums(folder: Path, **digests: str) -> Path:
    path = folder / "SHA256SUMS"
    path.write_text("".join(f"{digest}  {name}.jar\n" for name, digest in digests.items()))
    return path


def test_only_listed_files_with_the_listed_hash_stay(tmp_path: Path) -> None:
    libs = tmp_path / "libs"
    libs.mkdir()
    for name in ("good", "unasked"):
        (libs / f"{name}.jar").write_text(name)
    tools.check_hashes(libs, sums(tmp_path, good=hashlib.sha256(b"good").hexdigest()))
    assert [path.name for path in libs.iterdir()] == ["good.jar"]


def test_a_wrong_hash_names_the_file_and_both_hashes(tmp_path: Path) -> None:
    libs = tmp_path / "libs"
    libs.mkdir()
    (libs / "bad.jar").write_text("changed")
    wanted = hashlib.sha256(b"tested").hexdigest()
    with pytest.raises(ServiceError) as caught:
        tools.check_hashes(libs, sums(tmp_path, bad=wanted))
    found = hashlib.sha256(b"changed").hexdigest()
    for part in ("bad.jar", wanted, found):
        assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    with pytest.raises(ServiceError, match=r"gone\.jar was not delivered"):
        tools.check_hashes(tmp_path / "libs", sums(tmp_path, gone="00"))


def test_the_committed_sums_list_the_whole_broker() -> None:
    lines = (tools.KAFKA_FILES / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == 44
    assert any(line.endswith(f"kafka_2.13-{tools.KAFKA_VERSION}.jar") for line in lines)


def test_a_fetch_that_fails_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deliver(folder: Path, java_home: Path) -> None:
        (folder / "kafka/libs").mkdir(parents=True)

    monkeypatch.setattr(tools, "_run_ivy", deliver)
    with pytest.raises(ServiceError, match="was not delivered"):
        tools.ensure_kafka(settings, lambda _: None)
    assert [path.name for path in settings.tools.iterdir() if path.is_dir()] in ([], ["java"])


def test_a_missing_libpython_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "libpython_folder", lambda: None)
    monkeypatch.setattr(tools, "_system_has", lambda _: False)
    with pytest.raises(ServiceError, match=r"apt-get install libpython3\.11"):
        tools.ensure_libpython()
