"""The loop: follow the streams, fold, judge, tell."""

from __future__ import annotations

import json
import logging
import threading
import time
from math import log as ln
from typing import Any, cast

import msgspec
import redis
from redis.exceptions import RedisError

from models import routes
from models.contract import keys
from models.repository import Repository
from models.rollout import Route
from monitoring import examples, measure, telemetry
from monitoring.causes import loss
from monitoring.examine import BROKEN, features, importances, score_drift, whole
from monitoring.fairness import unequal
from monitoring.history import History
from monitoring.judge import Finding, Measurements, faults, judge
from monitoring.leases import Leases
from monitoring.outlook import outlook, promised
from monitoring.rollouts import Rollouts
from monitoring.rules import Rules, read_rules
from monitoring.settings import Settings
from monitoring.stats.sequential import log_e_paired
from monitoring.stream import Store
from monitoring.telemetry import Tracing
from monitoring.watch import Watched, baseline
from monitoring.watcher import Watcher
from monitoring.window import ANSWERING, PAIR, Window

log = logging.getLogger("slipstream.monitor")

#: Seconds between judgements; folding goes on in between.
JUDGE = 2.0
#: Risk of calling a version better than its successor that is not.
CERTAIN = 0.01
#: Seconds between looks at what another monitor follows.
OVERHEAR = 2.0
#: Seconds after which a silent worker counts as gone.
SILENT = 10


class Monitor:
    """Follows every model. Readers take `lock` while they look at the histories."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rules: Rules = read_rules(settings.rules)
        self.client = redis.Redis.from_url(settings.redis_url, socket_timeout=10)
        self.store = Store(self.client)
        self.repository = Repository(settings.repository)
        self.histories: dict[str, History] = {}
        self.rollouts = Rollouts(self.client)
        self.watcher = Watcher(self.client, self.rules)
        self.leases = Leases(self.client, settings.port)
        self.followed: set[str] = set()
        self.findings: dict[str, list[tuple[Finding, int]]] = {}
        self.lock = threading.RLock()
        self.changed_ms = 0
        self.failed = ""
        self._stopping = threading.Event()
        self._tracing = Tracing(settings.otlp_endpoint)
        self._judged = 0.0
        self._overheard: dict[str, float] = {}
        self._measured: dict[tuple[str, int], tuple[object, Measurements]] = {}

    # --- follow ------------------------------------------------------------------------------

    def run(self) -> None:
        """Follow until stopped. Redis away: say so once, wait, go on where it was."""
        while not self._stopping.is_set():
            try:
                busy = self.step()
                self.failed = ""
            except (RedisError, OSError) as error:
                if not self.failed:
                    log.warning("Redis does not answer (%s); the last numbers stay", error)
                self.failed, busy = str(error), False
            except Exception as error:  # whatever it is, following and serving go on
                log.exception("the monitor failed in a way nobody foresaw; it goes on")
                self.failed, busy = f"the monitor fails: {error!r}", False
            if not busy:
                self._stopping.wait(self.settings.interval)
        self._leave()
        self._tracing.shutdown()

    def _leave(self) -> None:
        try:
            self.leases.give_up()
        except (RedisError, OSError) as error:
            log.info("the leases run out by themselves: %s", error)

    def stop(self) -> None:
        self._stopping.set()

    def step(self) -> bool:
        """Fold one slice of each model that is its own to follow; True where there may be more."""
        models = self.store.models()
        self.followed = self.leases.share(models)
        busy = False
        for model in models:
            if model in self.followed:
                busy |= self._follow(model)
            else:
                self.watcher.forget(model)
                self._overhear(model)
        if time.monotonic() - self._judged > JUDGE or not busy:
            self._judge_all()
            self._judged = time.monotonic()
        return busy

    def _history(self, model: str) -> History:
        if model not in self.histories:
            self.histories[model] = History(model, self.store, self.repository)
        return self.histories[model]

    def _overhear(self, model: str) -> None:
        """What another monitor has found, from time to time: readers may ask any of them."""
        if time.monotonic() - self._overheard.get(model, 0.0) < OVERHEAR:
            return
        self._overheard[model] = time.monotonic()
        history = self._history(model)
        with self.lock:
            if history.refresh():
                self.changed_ms = time.time_ns() // 1_000_000
        self.findings[model] = [
            (msgspec.convert(record, Finding, strict=False), record["since_ms"])
            for record in self._told(model).values()
        ]

    def _follow(self, model: str) -> bool:
        history = self._history(model)
        with self.lock:
            folded = history.step()
        if folded is None:
            return False
        telemetry.FOLDED.labels(model).inc(folded.totals["rows"])
        telemetry.LABELS.labels(model).inc(folded.totals["labels"])
        self._tracing.feedback(model, folded.joined)
        self.changed_ms = time.time_ns() // 1_000_000
        return True

    def drain(self) -> None:
        """Fold everything that is there."""
        while self.step():
            pass

    # --- judge -------------------------------------------------------------------------------

    def _judge_all(self) -> None:
        for model, history in self.histories.items():
            if model not in self.followed:
                continue
            route = self.route(model)
            telemetry.LAG.labels(model).set(self.store.lag(model, history.progress.cursor))
            telemetry.LOST.labels(model).set(history.progress.totals["entries_lost"])
            if route is not None:
                self._judge(history, route)

    def _judge(self, history: History, route: Route) -> None:
        """One model; whatever is wrong with it stops no other."""
        try:
            with self.lock:
                history.learn(route.champion)
                self.watcher.step(history, route.champion)
                measured = self.measure(route.model, route.champion)
            self._export(measured)
            self._tell(route.model, judge(measured, self.rules))
        except (RedisError, OSError):
            raise
        except Exception:
            telemetry.UNJUDGED.labels(route.model).inc()
            log.exception("%s cannot be judged; its last findings stay", route.model)
        self._judge_rollout(history, route)

    def _judge_rollout(self, history: History, route: Route) -> None:
        try:
            with self.lock:
                self.rollouts.step(history, route, self.workers())
        except (RedisError, OSError):
            raise
        except Exception:
            telemetry.UNJUDGED.labels(route.model).inc()
            log.exception("the rollout of %s cannot be judged; it holds", route.model)

    def route(self, model: str) -> Route | None:
        """The route that stands; before the first one, the highest version that was seen."""
        route = routes.read(self.client, model)
        history = self.histories.get(model)
        if route is None and history is not None and history.versions():
            route = Route(model, champion=max(history.versions()))
        return route

    def measure(self, model: str, version: int) -> Measurements:
        """What is known of a version, over the last windows of event time; computed once until
        these change."""
        history = self.histories[model]
        last = history.newest("day")
        days = self.rules.drift.days + self.rules.performance.days
        state = self.watcher.state(history, version)
        stamp = (last, history.stamp(last - days, last), state)
        kept = self._measured.get((model, version))
        if kept is None or kept[0] != stamp:
            kept = stamp, self._measure(history, version, last, state)
            self._measured[model, version] = kept
        return kept[1]

    def _measure(self, history: History, version: int, last: int, watched: Watched) -> Measurements:
        lately, long = self.rules.drift.days, self.rules.performance.days

        def days(count: int, end: int) -> Window:
            return history.window(version, ANSWERING, "day", end - count + 1, end)

        recent, labelled = days(lately, last), days(long, last)
        # Windows whose labels have come; with windows of an hour, whole days of them.
        ripe = watched.to_grade - 1
        ripe = ripe if self.rules.windows.grain == "day" else ripe // 24 - 1
        mature = days(long, ripe)
        ok, invalid, error = measure.requests(recent)
        profile = history.layouts[version].profile
        return Measurements(
            model=history.model,
            version=version,
            features=features(recent),
            score=score_drift(recent),
            latency=measure.latency(recent["latency"]),
            requests=ok + invalid + error,
            errors=error,
            performance=measure.performance(labelled),
            mean_score=measure.mean_score(labelled),
            reference=profile.metrics if profile else {},
            profiled=profile is not None,
            watched=watched,
            lasting=self.watcher.lasting(watched, history, version),
            baseline=baseline(recent.layout),
            outlook=outlook(days(lately, ripe)) or promised(recent),
            mature=measure.performance(mature),
            mature_score=measure.mean_score(mature),
            split=loss(days(long, last - lately), recent),
            whole=whole(recent),
            unequal=unequal(labelled),
            importances=importances(profile),
            moves=self.watcher.moves(watched, history, version),
            better=self._better(history, version),
        )

    def _better(self, history: History, version: int) -> int | None:
        """The version that answered before, where it rides along and is right more often."""
        route = self.route(history.model)
        if route is None or route.previous is None or route.shadow != route.previous:
            return None
        changed = self._promoted(history.model)
        last = history.newest("day")
        since = history.window(route.previous, (PAIR,), "day", changed + 1, last)
        _, only_now, only_before, _ = since["right"].tolist()
        certain = log_e_paired(only_now, only_before) >= ln(1 / CERTAIN)
        return route.previous if certain and only_before > only_now else None

    def _promoted(self, model: str) -> int:
        """The day, since 1970, on which the champion changed last; pairs of the days before are
        with another one."""
        for entry in routes.audit(self.client, model):
            before = entry["before"] or {}
            if before.get("champion") != entry["after"]["champion"]:
                return int(entry["at_ms"] // 86_400_000)
        return 0

    def _export(self, measured: Measurements) -> None:
        version = str(measured.version)
        for feature in measured.features:
            telemetry.PSI.labels(measured.model, version, feature.feature).set(feature.psi_low)
        found = measured.performance
        for metric in ("auc", "accuracy"):
            estimate = getattr(found, metric, None)
            if estimate is not None:
                telemetry.QUALITY.labels(measured.model, version, metric).set(estimate.value)

    def _tell(self, model: str, found: list[Finding]) -> None:
        """To the log and to Redis, once for each finding that opens or closes."""
        now = self._event_ms(model)
        known = self._told(model)
        current = {finding.fingerprint: finding for finding in found}
        for gone in known.keys() - current.keys():
            log.info("%s: over: %s", model, known[gone]["sentence"])
            self.client.hdel(keys.findings(model), gone)
        told = []
        for name, finding in current.items():
            since = known[name]["since_ms"] if name in known else now
            if name not in known:
                log.warning(
                    "%s: %s: %s (%s)", model, finding.severity, finding.sentence, finding.value
                )
                finding = self._with_examples(finding)
            else:
                examples = tuple(known[name].get("examples", ()))
                finding = msgspec.structs.replace(finding, examples=examples)
            record = {**msgspec.to_builtins(finding), "since_ms": since}
            if record != known.get(name):
                self.client.hset(keys.findings(model), name, json.dumps(record))
            told.append((finding, since))
        self.findings[model] = told
        for severity in ("page", "ticket", "digest"):
            count = sum(finding.severity == severity for finding in found)
            telemetry.FINDINGS.labels(model, severity).set(count)

    def _with_examples(self, finding: Finding) -> Finding:
        """With predictions that show it, where the stream still has some."""
        model, version = finding.model, finding.version
        layout = self.histories[model].layouts[version]
        measured = self.measure(model, version)
        found: list[str] = []
        if finding.kind in BROKEN:
            worst = next((f for f in faults(measured, self.rules) if f.test == finding.kind), None)
            if worst is not None:
                found = examples.of_fault(self.store, model, version, layout, worst)
        elif finding.kind in ("harm", "concept", "release"):
            found = examples.of_harm(self.store, model, version)
        return msgspec.structs.replace(finding, examples=tuple(found))

    def _told(self, model: str) -> dict[str, dict[str, Any]]:
        """The findings that are open, as they were told."""
        stored = cast("dict[bytes, bytes]", self.client.hgetall(keys.findings(model)))
        return {name.decode(): json.loads(data) for name, data in stored.items()}

    def _event_ms(self, model: str) -> int:
        return self.histories[model].newest("day") * 86_400_000

    # --- workers -----------------------------------------------------------------------------

    def workers(self) -> list[dict[str, Any]]:
        """The workers that live; those that fell silent are forgotten."""
        now = time.time_ns() // 1_000_000
        alive = []
        beats = cast("dict[bytes, bytes]", self.client.hgetall(keys.WORKERS))
        for name, data in beats.items():
            beat = json.loads(data)
            if now - beat["at_ms"] < SILENT * 1000:
                alive.append(beat)
            elif now - beat["at_ms"] > 600 * 1000:
                self.client.hdel(keys.WORKERS, name)
        return alive
