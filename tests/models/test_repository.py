"""models.repository: a folder in which nothing ever changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import profile
from models.errors import RepositoryError, UnknownVersion, VersionExists
from models.manifest import Manifest, digest_of, read_manifest, write_manifest
from models.profile import Profile
from models.repository import Repository, check_name
from models.version import ModelVersion

V1 = ModelVersion("m", 1)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    return path


def manifest(file: Path, version: int = 1, model: str = "m") -> Manifest:
    return Manifest(model, version, digest_of(file))


def test_what_is_pushed_is_there(repository: Repository, file: Path) -> None:
    """Model, manifest and profile; nothing is missing and the digest is right."""
    assert repository.push(file, manifest(file), Profile(3))
    package = repository.open(V1)
    assert package.file.read_bytes() == b"weights"
    assert (package.manifest, package.profile, package.missing) == (
        manifest(file),
        Profile(3),
        "",
    )
    repository.verify(package)


def test_the_same_again_changes_nothing(repository: Repository, file: Path) -> None:
    """Pushing is idempotent."""
    assert repository.push(file, manifest(file), None)
    assert not repository.push(file, manifest(file), None)
    assert repository.versions("m") == [1]


def test_another_file_under_the_same_number_is_refused(repository: Repository, file: Path) -> None:
    """Versions never change; the sentence names the next number that is free."""
    repository.push(file, manifest(file), None)
    repository.push(file, manifest(file, 2), None)
    file.write_bytes(b"others")
    with pytest.raises(VersionExists, match="push it as version 3"):
        repository.push(file, manifest(file), None)
    assert repository.open(V1).file.read_bytes() == b"weights"


def test_a_push_that_fails_leaves_nothing(
    repository: Repository, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it or nothing: not even a half-written folder, when the disk is full."""

    def full(path: Path, value: Profile) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("models.repository.write_profile", full)
    with pytest.raises(OSError, match="no space"):
        repository.push(file, manifest(file), Profile(1))
    assert repository.scan() == []
    assert list((repository.root / "m").iterdir()) == []
    monkeypatch.setattr("models.repository.write_profile", profile.write_profile)
    assert repository.push(file, manifest(file), Profile(1))


def test_another_digest_is_found_out(repository: Repository, file: Path) -> None:
    """A file that somebody replaced is not served as the version that was pushed."""
    repository.push(file, manifest(file), None)
    package = repository.open(V1)
    package.file.write_bytes(b"tampered")
    with pytest.raises(RepositoryError, match="not the file that was pushed"):
        repository.verify(package)


def test_only_versions_are_seen(repository: Repository, file: Path) -> None:
    """Numbers from 1 with a model file; what is being pushed, or is no version, is not."""
    for folder in ("m/1", "m/02", "m/0", "m/x", "m/.push-1", "m/²", ".hidden/1", "n/10", "n/9"):
        there = repository.root / folder
        there.mkdir(parents=True)
        (there / "model.onnx").write_bytes(b"weights")
    (repository.root / "m/3").mkdir()
    (repository.root / "readme").write_text("")
    assert repository.scan() == [V1, ModelVersion("n", 9), ModelVersion("n", 10)]


def test_no_folder_is_no_models(repository: Repository) -> None:
    """A gateway may start before anything was pushed."""
    assert repository.scan() == []


def test_tritons_layout_is_enough(repository: Repository) -> None:
    """Without a manifest a version serves; the package says what monitoring does without."""
    folder = repository.folder(V1)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    package = repository.open(V1)
    repository.verify(package)
    assert "no manifest.toml" in package.missing
    write_manifest(folder / "manifest.toml", Manifest("m", 1, ""))
    assert "no profile.json" in repository.open(V1).missing


def test_what_cannot_be_opened_says_why(repository: Repository, file: Path) -> None:
    """An unknown version lists the known ones; a manifest of another version is no manifest."""
    repository.push(file, manifest(file), None)
    with pytest.raises(UnknownVersion, match="no version 7 of m; known: 1"):
        repository.open(ModelVersion("m", 7))
    path = repository.folder(V1) / "manifest.toml"
    write_manifest(path, Manifest("m", 2, read_manifest(path).digest))
    with pytest.raises(RepositoryError, match="speaks of m v2, not of m v1"):
        repository.open(V1)


@pytest.mark.parametrize("name", ["m", "flights-delay", "a.b_c-1", "_", "x" * 128])
def test_names(name: str) -> None:
    """What fits into a path and a Redis key as it is."""
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-m", "a/b", "a b", "a{b}", "a%2f", "é", "m\n", "x" * 129]
)
def test_other_names_are_refused(name: str, repository: Repository, file: Path) -> None:
    """No separators, no braces, nothing to escape; and nothing is written for them."""
    with pytest.raises(RepositoryError, match="cannot name a model"):
        repository.push(file, manifest(file, model=name), None)
    assert not repository.root.exists()
