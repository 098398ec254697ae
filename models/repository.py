"""What exists on disk: `<model>/<version>/model.onnx`, Triton's layout.

Beside the file, `manifest.toml` and `profile.json` tell the monitor what to look at. A version
never changes: pushing other bytes under a number that exists is refused.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.errors import RepositoryError, UnknownVersion, VersionExists
from models.manifest import Manifest, digest_of, read_manifest, write_manifest
from models.profile import Profile, read_profile, write_profile
from models.version import ModelVersion

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.toml"
PROFILE_FILE = "profile.json"

#: Clients put the name into a path unescaped, and Redis keys wrap it in braces.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")


@dataclass(frozen=True, slots=True)
class Package:
    """One version on disk. `missing` says in a sentence what monitoring has to do without."""

    version: ModelVersion
    file: Path
    manifest: Manifest
    profile: Profile | None
    missing: str = ""


class Repository:
    """A folder of models."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def scan(self) -> list[ModelVersion]:
        """Every version that has a model file, by name and number."""
        return sorted(self._scan())

    def _scan(self) -> Iterator[ModelVersion]:
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            if not folder.is_dir() or not _NAME.fullmatch(folder.name):
                continue
            for version in folder.iterdir():
                if _is_number(version.name) and (version / MODEL_FILE).is_file():
                    yield ModelVersion(folder.name, int(version.name))

    def versions(self, model: str) -> list[int]:
        return [v.number for v in self.scan() if v.model == model]

    def open(self, version: ModelVersion) -> Package:
        """Read manifest and profile. Raises UnknownVersion or RepositoryError."""
        folder = self.folder(version)
        file = folder / MODEL_FILE
        if not file.is_file():
            raise UnknownVersion(version.model, version.number, self.versions(version.model))
        manifest_file, profile_file = folder / MANIFEST_FILE, folder / PROFILE_FILE
        if not manifest_file.is_file():
            missing = (
                f"{version} has no {MANIFEST_FILE}: traffic and latency are monitored; drift and "
                f"accuracy need `slipstream push` with reference data"
            )
            bare = Manifest(version.model, version.number, digest="")
            return Package(version, file, bare, None, missing)
        manifest = read_manifest(manifest_file)
        if (manifest.model, manifest.version) != version:
            raise RepositoryError(
                f"{manifest_file} speaks of {manifest.model} v{manifest.version}, not of {version}"
            )
        if not profile_file.is_file():
            missing = (
                f"{version} has no {PROFILE_FILE}: drift needs `slipstream push` with "
                f"reference data"
            )
            return Package(version, file, manifest, None, missing)
        return Package(version, file, manifest, read_profile(profile_file))

    def verify(self, package: Package) -> None:
        """Raise RepositoryError where the file is not the one that was pushed."""
        if package.manifest.digest and digest_of(package.file) != package.manifest.digest:
            raise RepositoryError(
                f"{package.file} is not the file that was pushed: its digest differs from the "
                f"manifest's; push it as a new version"
            )

    def folder(self, version: ModelVersion) -> Path:
        return self.root / version.model / str(version.number)

    def push(self, file: Path, manifest: Manifest, profile: Profile | None) -> bool:
        """Add a version, all of it or nothing. False: the very same version was there.

        Raises VersionExists where the number is taken by another file.
        """
        version = ModelVersion(manifest.model, manifest.version)
        check_name(version.model)
        folder = self.folder(version)
        if folder.exists():
            return self._same(version, manifest.digest)
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".push-", dir=folder.parent))
        try:
            shutil.copyfile(file, staging / MODEL_FILE)
            write_manifest(staging / MANIFEST_FILE, manifest)
            if profile is not None:
                write_profile(staging / PROFILE_FILE, profile)
            staging.chmod(0o755)
            os.rename(staging, folder)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            if folder.exists():  # somebody else pushed it in this very moment
                return self._same(version, manifest.digest)
            raise
        return True

    def _same(self, version: ModelVersion, digest: str) -> bool:
        there = digest_of(self.folder(version) / MODEL_FILE)
        if there == digest:
            return False
        raise VersionExists(
            f"{version} exists with another digest ({there[:19]}…, not {digest[:19]}…); "
            f"versions never change: push it as version {max(self.versions(version.model)) + 1}"
        )


def check_name(model: str) -> None:
    """Raise RepositoryError unless `model` can stand in a URL and a Redis key."""
    if not _NAME.fullmatch(model):
        raise RepositoryError(
            f"'{model}' cannot name a model: letters, digits, '_', '-' and '.' only, "
            f"up to 128, and none but the first two and '_' at the start"
        )


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0")
