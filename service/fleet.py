"""What this worker has loaded, and which routes it applies.

`models.lifecycle` decides what happens to a version next; here it is done, in a thread and beside
what runs. A route is applied only when every version in it is ready; until then, and while Redis
is away, the last good one goes on, also after a restart: a copy of it is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
from typing import NamedTuple

import redis.asyncio
from redis.asyncio.client import PubSub

from models import lifecycle, routes
from models.contract import keys
from models.errors import (
    BadModel,
    NotFound,
    NotReady,
    SlipstreamError,
    UnknownModel,
    UnknownVersion,
)
from models.lifecycle import Action, Standing, Step
from models.repository import Repository
from models.rollout import Route
from models.sessions import LoadedVersion, Retiring
from models.version import ModelVersion, State
from service import metrics
from service.orders import Orders
from service.recorded import Recorded
from service.recorder import AWAY
from service.route_copy import RouteCopy
from service.settings import Settings

log = logging.getLogger("slipstream.fleet")

#: Seconds between looks into the repository for what is new and what is gone.
RESCAN = 2.0
GONE = "its folder is gone; it is served as long as the route needs it"
DRAINING = "no new request gets it; some that came before are still running"


class Life(NamedTuple):
    """Where a version stands, and the reason to be told."""

    state: State
    reason: str = ""


class Fleet:
    """Loaded versions and applied routes of one worker.

    The event loop reads dictionaries that threads replace as a whole, so it needs no lock.
    """

    def __init__(
        self, repository: Repository, client: redis.asyncio.Redis, settings: Settings
    ) -> None:
        self._repository = repository
        self._client = client
        self._threads = settings.threads
        self._poll = settings.poll
        self._deadline = settings.deadline
        self._recorded = Recorded(settings.redis_url)
        self._copy = RouteCopy(settings.home / "routes.json")
        self.orders = Orders(client)
        self._hints: PubSub | None = None
        self._life: dict[ModelVersion, Life] = {}
        self._on_disk: set[ModelVersion] = set()
        self._opened: dict[ModelVersion, LoadedVersion] = {}
        self._loaded: dict[str, dict[int, LoadedVersion]] = {}  # ready, and nothing else
        self._retiring: dict[ModelVersion, Retiring] = {}
        self._unloaded: set[ModelVersion] = set()  # by an operator
        self._routes: dict[str, Route] = {}
        self._pending: dict[str, Route] = {}  # wait for their versions
        self._resting: dict[str, Route] = {}  # of models that were unloaded as a whole
        self._settling = threading.Lock()  # one step at a time
        self._moving = (
            threading.Lock()
        )  # held for moments: a route is applied, or a version drained
        self.ready = False

    # --- what the request path asks ----------------------------------------------------------

    def route(self, model: str) -> Route:
        """Raises UnknownModel, NotFound where it was unloaded, BadModel, or NotReady."""
        route = self._routes.get(model)
        if route is not None:
            return route
        if model in self._resting:
            raise NotFound(f"{model} is not loaded: {_way_back(model)}")
        lives = self._lives(model).values()
        reasons = [life.reason for life in lives if life.state == State.FAILED]
        if reasons:
            raise BadModel(reasons[-1])
        if lives:
            raise NotReady(f"{model} is not loaded yet; try again shortly")
        raise UnknownModel(model, self._loaded)

    def version(self, model: str, number: int) -> LoadedVersion:
        """Raises UnknownVersion, NotFound where it was unloaded, BadModel, or NotReady."""
        versions = self._loaded.get(model, {})
        loaded = versions.get(number)
        if loaded is not None:
            return loaded
        version = ModelVersion(model, number)
        state, reason = self._life.get(version, (None, ""))
        if state is None:
            raise UnknownVersion(model, number, versions)
        if state == State.FAILED:
            raise BadModel(reason)
        if state in (State.RETIRED, State.DRAINING):
            raise NotFound(f"{version} is not loaded: {_way_back(model)}")
        raise NotReady(f"{version} is {state}; try again shortly")

    def ready_version(self, model: str, number: int) -> LoadedVersion | None:
        return self._loaded.get(model, {}).get(number)

    def versions(self, model: str) -> list[int]:
        return sorted(self._loaded.get(model, ()))

    def models(self) -> list[str]:
        return sorted(self._loaded)

    def index(self) -> list[tuple[ModelVersion, State, str]]:
        """Every version that this worker knows, its state and the reason for it."""
        return sorted((version, *life) for version, life in list(self._life.items()))

    @property
    def costs(self) -> dict[str, dict[str, tuple[float, int]]]:
        """Seconds to load and bytes of memory, by model and version."""
        return {
            model: {str(n): (v.load_seconds, v.memory) for n, v in versions.items()}
            for model, versions in list(self._loaded.items())
        }

    @property
    def revisions(self) -> dict[str, int]:
        return {model: route.revision for model, route in list(self._routes.items())}

    # --- what operators ask ------------------------------------------------------------------

    def load(self, model: str, number: int | None = None) -> None:
        """Load what is not ready, also what was unloaded or failed. Never moves traffic.

        Raises UnknownModel, UnknownVersion, or BadModel where something cannot be loaded.
        """
        with self._settling:
            self._look()
            asked = self._asked(model, number)
            if not asked:
                raise UnknownModel(model, self._loaded)
            self._unloaded -= asked
            for version in asked:
                if self._life[version].state == State.FAILED:
                    self._become(version, State.REGISTERED)
            self._settle(model)
            lives = [self._life[version] for version in sorted(asked) if version in self._life]
        failed = [life.reason for life in lives if life.state == State.FAILED]
        if failed:
            raise BadModel("; ".join(failed))

    def unload(self, model: str, number: int | None = None) -> None:
        """Unload one version, or all that the route does not need.

        A model to which nobody gave a route yet goes as a whole. Requests that are running end
        as they would have. Raises UnknownVersion, or IllegalTransition where the route needs
        what is left. Like Triton, it finds nothing wrong with a model that is not there.
        """
        with self._settling:
            self._look()
            asked = self._asked(model, number)
            with self._moving:
                route = self._pending.get(model) or self._routes.get(model)
                if number is None and route is not None and route.revision == 0:
                    self._resting[model] = self._routes.pop(model)
                needed = self._roles(model)
                spare = {version for version in asked if version.number not in needed}
                if route is not None and not any(self._stands(version) for version in spare):
                    kept = number if number is not None else route.champion
                    if kept in needed:
                        raise lifecycle.refuse_unload(route, kept)
                self._unloaded |= spare
            for version in spare:
                if self._life[version].state == State.REGISTERED:
                    self._become(version, State.RETIRED, _way_back(model))
            self._settle(model)

    def _asked(self, model: str, number: int | None) -> set[ModelVersion]:
        known = set(self._lives(model))
        if number is None:
            return known
        if ModelVersion(model, number) not in known:
            raise UnknownVersion(model, number, (version.number for version in known))
        return {ModelVersion(model, number)}

    def _stands(self, version: ModelVersion) -> bool:
        return self._life[version].state not in (State.RETIRED, State.FAILED)

    # --- the life of a version ---------------------------------------------------------------

    def load_all(self) -> None:
        """Bring every version to where it should be: at the start, and whenever a look is due."""
        with self._settling:
            self._look()
            for model in sorted({version.model for version in self._life}):
                self._settle(model)
            for route in [] if self.ready else self._copy.read():
                if route.revision >= self._routes.get(route.model, route).revision:
                    self._apply(route)

    def _look(self) -> None:
        """See what is on disk. A repository that is away as a whole was not deleted."""
        if self._repository.root.is_dir():
            self._on_disk = set(self._repository.scan())
        for version in self._on_disk - set(self._life):
            self._become(version, State.REGISTERED)
            if version.model in self._resting:
                self._unloaded.add(version)
        for version in [*self._retiring]:
            if time.monotonic() - self._retiring[version].since > self._deadline:
                # What holds it may be a cycle, and the gateway's collector hardly ever runs.
                self._retiring[version].since = time.monotonic()
                gc.collect()

    def _settle(self, model: str) -> None:
        """Take step after step until none is left, then give the model a route if it has none."""
        while step := lifecycle.next_step(self._snapshot(model)):
            self._take(step)
        for version, life in self._lives(model).items():
            if life.state == State.READY and version not in self._on_disk and life.reason != GONE:
                log.warning("%s: %s", version, GONE)
                self._become(version, State.READY, GONE)
        versions = self._loaded.get(model)
        if versions and model not in self._routes and model not in self._pending:
            # Nothing moves by itself later: a newer version waits for its route. A model that
            # was unloaded goes on with the version that answered before.
            rested = self._resting.get(model)
            champion = rested.champion if rested and rested.champion in versions else max(versions)
            self._apply(Route(model, champion))

    def _snapshot(self, model: str) -> list[Standing]:
        needed = self._roles(model)
        return [
            Standing(
                version,
                life.state,
                version in self._on_disk,
                needed.get(version.number, ""),
                version in self._unloaded,
                version in self._retiring and self._retiring[version].held is not None,
            )
            for version, life in self._lives(model).items()
        ]

    def _lives(self, model: str) -> dict[ModelVersion, Life]:
        return {v: life for v, life in list(self._life.items()) if v.model == model}

    def _roles(self, model: str) -> dict[int, str]:
        standing = (self._pending.get(model), self._routes.get(model))
        return {
            n: role for route in standing if route for n, role in lifecycle.roles(route).items()
        }

    def _take(self, step: Step) -> None:
        steps = {
            Action.LOAD: self._load,
            Action.WARM: self._warm,
            Action.RESUME: self._resume,
            Action.DRAIN: self._drain,
            Action.CLOSE: self._close,
            Action.FORGET: self._forget,
        }
        try:
            steps[step.action](step.version)
        except (SlipstreamError, OSError) as error:
            log.error("%s", error)
            self._become(step.version, State.FAILED, str(error))
        except Exception as error:
            log.exception("%s failed in a way nobody foresaw", step.version)
            self._become(step.version, State.FAILED, f"{step.version} cannot be used: {error!r}")

    def _become(self, version: ModelVersion, state: State, reason: str = "") -> None:
        self._life[version] = Life(state, reason)
        log.debug("%s is %s", version, state)

    def _load(self, version: ModelVersion) -> None:
        self._become(version, State.LOADING)
        package = self._repository.open(version)
        self._repository.verify(package)
        self._opened[version] = LoadedVersion(package, self._threads)
        if package.missing:
            log.warning("%s", package.missing)
        self._become(version, State.LOADED)

    def _warm(self, version: ModelVersion) -> None:
        self._become(version, State.WARMING)
        loaded = self._opened.pop(version)
        # Only what is to answer: a candidate that harms does so as a shadow, in its own process.
        role = self._roles(version.model).get(version.number)
        answers = role is not None and role != lifecycle.SHADOW
        loaded.warm(self._recorded.requests(version.model) if answers else ())
        self._admit(loaded)

    def _resume(self, version: ModelVersion) -> None:
        loaded = self._retiring[version].held
        if loaded is not None:
            del self._retiring[version]
            self._admit(loaded)

    def _admit(self, loaded: LoadedVersion) -> None:
        """Let requests have it."""
        model, number = loaded.version
        self._loaded[model] = {**self._loaded.get(model, {}), number: loaded}
        self._unloaded.discard(loaded.version)
        self._become(loaded.version, State.READY, loaded.package.missing)

    def _drain(self, version: ModelVersion) -> None:
        """Let no new request have it."""
        with self._moving:
            if version.number in self._roles(version.model):
                return  # a route came to need it since the snapshot was taken
            versions = dict(self._loaded.get(version.model, {}))
            loaded = self._opened.pop(version, None) or versions.pop(version.number)
            self._retiring[version] = Retiring(loaded)
            if versions:
                self._loaded[version.model] = versions
            else:
                self._loaded.pop(version.model, None)
            self._become(version, State.DRAINING, DRAINING)

    def _close(self, version: ModelVersion) -> None:
        self._retiring.pop(version).close()
        self._become(version, State.RETIRED, _way_back(version.model))

    def _forget(self, version: ModelVersion) -> None:
        del self._life[version]
        self._unloaded.discard(version)

    # --- routes ------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Follow repository and routes until cancelled."""
        looked = asyncio.get_running_loop().time()
        while True:
            try:
                await self._wait()
                due = asyncio.get_running_loop().time() - looked > RESCAN
                if due or self._retiring:
                    await asyncio.to_thread(self.load_all)
                    looked = asyncio.get_running_loop().time()
                await self.read_routes()
                await self.read_orders()
            except Exception:
                log.exception("looking for versions and routes failed; it goes on")

    async def _wait(self) -> None:
        """Until a hint that a route changed, at most one poll: hints can be lost."""
        try:
            if self._hints is None:
                self._hints = self._client.pubsub()
                await self._hints.subscribe(keys.ROUTES)
            await self._hints.get_message(ignore_subscribe_messages=True, timeout=self._poll)
        except AWAY:
            lost, self._hints = self._hints, None
            if lost is not None:
                with contextlib.suppress(*AWAY):
                    await lost.aclose()  # type: ignore[no-untyped-call]  # gives its connection back
            await asyncio.sleep(self._poll)

    async def read_routes(self) -> None:
        """Apply the routes that changed and whose versions are all ready."""
        known = sorted({version.model for version in list(self._life)})
        try:
            found = await routes.read_many(self._client, known)
        except AWAY as error:
            log.debug("routes stay as they are: %s", error)  # the recorder says it aloud
            return
        self._pending = {m: route for m, route in list(self._pending.items()) if m in found}
        changed = False
        for model, route in found.items():
            applied = self._routes.get(model)
            if route == applied:
                self._pending.pop(model, None)
                continue
            changed = await self._try(route) or changed
        if changed:
            await asyncio.to_thread(self._copy.write, dict(self._routes))

    async def read_orders(self) -> None:
        """Do what operators asked of other workers."""
        try:
            found = await self.orders.heard()
        except AWAY as error:
            log.debug("no orders are heard: %s", error)  # the recorder says it aloud
            return
        for order in found:
            act = self.load if order.action == "load" else self.unload
            try:
                await asyncio.to_thread(act, order.model, order.number)
            except SlipstreamError as error:
                log.warning("%s %s, as another worker did: %s", order.action, order.model, error)
            except Exception:
                log.exception("%s %s failed in a way nobody foresaw", order.action, order.model)

    async def _try(self, route: Route) -> bool:
        """Apply a route; where its versions are not ready, it makes them wanted and waits."""
        if self._apply(route):
            return True
        told = self._pending.get(route.model)
        self._pending[route.model] = route
        await asyncio.to_thread(self.load_all)
        if self._apply(route):
            return True
        if not self.ready:
            # Nobody was answered yet, and somebody decided who answers: not the newest version.
            with self._moving:
                if self._routes.get(route.model, route).revision == 0:
                    self._routes.pop(route.model, None)
        if told != route:
            waiting = sorted(n for n in route.versions() if not self.ready_version(route.model, n))
            log.warning("route %d of %s waits for version %s", route.revision, route.model, waiting)
        return False

    def _apply(self, route: Route) -> bool:
        """False where a version of it is not ready."""
        model = route.model
        with self._moving:
            if not all(self.ready_version(model, number) for number in route.versions()):
                return False
            self._routes[model] = route
            self._pending.pop(model, None)
            self._resting.pop(model, None)
        metrics.REVISION.labels(model).set(route.revision)
        if route.revision:
            log.info("route %d of %s applied: %s", route.revision, model, route)
        return True


def _way_back(model: str) -> str:
    return f"it was unloaded; POST /v2/repository/models/{model}/load brings it back"
