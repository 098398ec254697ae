"""What this worker has loaded, and which routes it applies.

A route is applied only when every version in it is ready; until then, and while Redis is away,
the last good one goes on, also after a restart: a copy of it is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import threading

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from models import routes
from models.contract import keys
from models.errors import BadModel, SlipstreamError, UnknownModel, UnknownVersion
from models.repository import Repository
from models.rollout import Route
from models.sessions import LoadedVersion
from models.version import ModelVersion, State
from service import metrics
from service.route_copy import RouteCopy
from service.settings import Settings

log = logging.getLogger("slipstream.fleet")

#: Seconds between looks into the repository for new versions.
RESCAN = 2.0


class Fleet:
    """Loaded versions and applied routes of one worker."""

    def __init__(
        self, repository: Repository, client: redis.asyncio.Redis, settings: Settings
    ) -> None:
        self._repository = repository
        self._client = client
        self._threads = settings.threads
        self._poll = settings.poll
        self._copy = RouteCopy(settings.home / "routes.json")
        self._hints: PubSub | None = None
        self._loaded: dict[str, dict[int, LoadedVersion]] = {}
        self._failed: dict[ModelVersion, str] = {}
        self._routes: dict[str, Route] = {}
        self._loading = threading.Lock()
        self.ready = False

    # --- what the request path asks ----------------------------------------------------------

    def route(self, model: str) -> Route:
        """Raises UnknownModel, or BadModel where none of its versions could be loaded."""
        route = self._routes.get(model)
        if route is not None:
            return route
        reasons = [why for version, why in list(self._failed.items()) if version.model == model]
        if reasons:
            raise BadModel(reasons[-1])
        raise UnknownModel(model, self._loaded)

    def version(self, model: str, number: int) -> LoadedVersion:
        """Raises UnknownVersion, or BadModel where it could not be loaded."""
        loaded = self._loaded[model].get(number)
        if loaded is not None:
            return loaded
        reason = self._failed.get(ModelVersion(model, number))
        if reason:
            raise BadModel(reason)
        raise UnknownVersion(model, number, self._loaded[model])

    def ready_version(self, model: str, number: int) -> LoadedVersion | None:
        return self._loaded.get(model, {}).get(number)

    def versions(self, model: str) -> list[int]:
        return sorted(self._loaded.get(model, ()))

    def models(self) -> list[str]:
        return sorted(self._loaded)

    def index(self) -> list[tuple[ModelVersion, State, str]]:
        """Every version that is or should be loaded, its state and the reason for it."""
        ready = [
            (loaded.version, State.READY, loaded.package.missing)
            for versions in list(self._loaded.values())
            for loaded in versions.values()
        ]
        failed = [(version, State.UNAVAILABLE, why) for version, why in list(self._failed.items())]
        return sorted(ready + failed)

    @property
    def revisions(self) -> dict[str, int]:
        return {model: route.revision for model, route in list(self._routes.items())}

    # --- beside it ---------------------------------------------------------------------------

    def load_all(self) -> None:
        """Open, check and warm every version of the repository that is not loaded yet."""
        with self._loading:
            for version in self._repository.scan():
                if not self.ready_version(*version) and version not in self._failed:
                    self._load(version)
            for route in [] if self.ready else self._copy.read():
                if all(self.ready_version(route.model, n) for n in route.versions()):
                    self._apply(route)
            for model in list(self._loaded):
                if model not in self._routes:
                    # Nothing moves by itself later: a newer version waits for its route.
                    self._apply(Route(model, champion=max(self._loaded[model])))

    def _load(self, version: ModelVersion) -> None:
        try:
            package = self._repository.open(version)
            self._repository.verify(package)
            loaded = LoadedVersion(package, self._threads)
        except (SlipstreamError, OSError) as error:
            log.error("%s", error)
            self._failed[version] = str(error)
            return
        if package.missing:
            log.warning("%s", package.missing)
        versions = self._loaded.get(version.model, {})
        self._loaded[version.model] = {**versions, version.number: loaded}

    def reload(self, model: str) -> None:
        """Try again what failed, and look for what is new. Raises BadModel or UnknownModel."""
        with self._loading:
            for version in [v for v in self._failed if v.model == model]:
                del self._failed[version]
        self.load_all()
        self.route(model)

    async def follow(self) -> None:
        """Follow repository and routes until cancelled."""
        looked = asyncio.get_running_loop().time()
        while True:
            await self._wait()
            try:
                if asyncio.get_running_loop().time() - looked > RESCAN:
                    await asyncio.to_thread(self.load_all)
                    looked = asyncio.get_running_loop().time()
                await self.read_routes()
            except Exception:
                log.exception("looking for versions and routes failed; it goes on")

    async def _wait(self) -> None:
        """Until a hint that a route changed, at most one poll: hints can be lost."""
        try:
            if self._hints is None:
                self._hints = self._client.pubsub()
                await self._hints.subscribe(keys.ROUTES)
            await self._hints.get_message(ignore_subscribe_messages=True, timeout=self._poll)
        except (RedisError, OSError):
            self._hints = None
            await asyncio.sleep(self._poll)

    async def read_routes(self) -> None:
        """Apply the routes that changed and whose versions are all ready."""
        try:
            found = await routes.read_many(self._client, self.models())
        except (RedisError, OSError) as error:
            log.debug("routes stay as they are: %s", error)  # the recorder says it aloud
            return
        changed = False
        for model, route in found.items():
            applied = self._routes.get(model)
            if applied is not None and route.revision == applied.revision:
                continue
            waiting = [n for n in route.versions() if not self.ready_version(model, n)]
            if waiting:
                await asyncio.to_thread(self.load_all)
                waiting = [n for n in route.versions() if not self.ready_version(model, n)]
            if waiting:
                log.warning("route %d of %s waits for version %s", route.revision, model, waiting)
                continue
            self._apply(route)
            changed = True
        if changed:
            await asyncio.to_thread(self._copy.write, dict(self._routes))

    def _apply(self, route: Route) -> None:
        self._routes[route.model] = route
        metrics.REVISION.labels(route.model).set(route.revision)
        if route.revision:
            log.info("route %d of %s applied: %s", route.revision, route.model, route)
