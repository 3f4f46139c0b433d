"""Generate on a Ray cluster: a pool of actors with a backend each, results streamed to one driver.

An actor holds at most one batch at a time, so what is under way is bounded by workers times batch
size. When an actor or its node is lost, the inputs of its batch that had not arrived go to other
actors, and a new actor is asked for; what had arrived is with the driver, which writes it.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from ccrl_cli.errors import CcrlError, PartialError, PreconditionError
from ccrl_cli.generators.base import Generated, GenerationRequest
from ccrl_cli.generators.registry import GeneratorRecipe

#: How often an input may be under way when its worker dies before it is taken for the cause.
MAX_LOSSES = 3
_START_SECONDS = 600.0
_REACH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RaySettings:
    """How the cluster is used.

    Attributes:
        address: ``auto`` for the cluster of this machine, or a local one where there is none;
            else HOST:PORT or ray://HOST:PORT.
        workers: actors; 0 for one a GPU, without GPUs one a node.
        cpus_per_worker: CPUs that an actor reserves.
        gpus_per_worker: GPUs that an actor reserves; None for one where the cluster has any.
        batch_size: inputs that an actor has at a time.
    """

    address: str
    workers: int
    cpus_per_worker: float
    gpus_per_worker: float | None
    batch_size: int


class Worker:
    """What runs in an actor: one generator."""

    def __init__(self, recipe: GeneratorRecipe) -> None:
        self._generator = recipe.build()

    def describe(self) -> tuple[str, tuple[str, ...], dict[str, str]]:
        """Return name, special tokens and details of the generator, once it is loaded."""
        generator = self._generator
        return generator.name, tuple(generator.special_tokens), dict(generator.details)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generated]:
        """Yield each input as soon as it is done."""
        yield from self._generator.generate(requests)


@dataclass(slots=True)
class _Seat:
    """An actor and what it has to do.

    Attributes:
        waits_for: reference of its start, then the stream of its batch; None while it is idle.
        batch: inputs that it still owes, by id.
    """

    actor: Any
    waits_for: Any
    is_ready: bool = False
    batch: dict[str, GenerationRequest] = field(default_factory=dict)


class RayGenerator:
    """A pool of generators on a cluster.

    Args:
        recipe: what each actor builds.
        settings: how the cluster is used.

    Attributes:
        lost: actors that died.
    """

    def __init__(self, recipe: GeneratorRecipe, settings: RaySettings) -> None:
        self._ray = _import_ray()
        self._settings = settings
        self._seats: list[_Seat] = []
        self._losses: dict[str, int] = {}
        self._losses_in_a_row = 0
        self.lost = 0
        # Ray prints news of lost nodes to stdout, which is for the result.
        self._speech = redirect_stdout(sys.stderr)
        self._speech.__enter__()
        self._starts_ray = not self._ray.is_initialized()
        try:
            if self._starts_ray:
                _connect(self._ray, settings.address)
            self._recipe = self._ray.put(recipe)
            self._actor_class = self._make_actor_class()
            self._count = settings.workers or self._default_workers()
            self._fill()
            name, self.special_tokens, details = self._describe_first()
        except BaseException:
            self.close()
            raise
        self.name = name
        self.details: Mapping[str, str] = {**details, "ray": self._ray.__version__}

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generated]:
        """Yield inputs as they arrive from any actor, the longest begun first.

        Raises:
            PartialError: actors die again and again.
        """
        waiting = deque(sorted(requests, key=_length, reverse=True))
        owed = {request.input_id for request in requests}
        while owed:
            self._hand_out(waiting)
            seat = self._next_seat()
            try:
                generated = self._receive(seat)
            except self._ray.exceptions.RayActorError as error:
                self._replace(seat, waiting, error)
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from error
            if generated is not None and generated.input_id in owed:
                owed.discard(generated.input_id)
                yield generated

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        seats, self._seats = self._seats, []
        try:
            for seat in seats:
                self._ray.kill(seat.actor)
            if self._starts_ray:
                self._ray.shutdown()
        finally:
            self._speech.__exit__(None, None, None)

    def _make_actor_class(self) -> Any:
        gpus = self._settings.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if self._ray.cluster_resources().get("GPU") else 0.0
        self._gpus = gpus
        # Placed apart: two models on one node only where nothing else is free.
        return self._ray.remote(
            num_cpus=self._settings.cpus_per_worker, num_gpus=gpus, scheduling_strategy="SPREAD"
        )(Worker)

    def _default_workers(self) -> int:
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if self._gpus and gpus:
            return max(1, int(gpus / self._gpus))
        return max(1, sum(bool(node["Alive"]) for node in self._ray.nodes()))

    def _fill(self) -> None:
        while len(self._seats) < self._count:
            actor = self._actor_class.remote(self._recipe)
            self._seats.append(_Seat(actor, actor.describe.remote()))

    def _describe_first(self) -> tuple[str, tuple[str, ...], dict[str, str]]:
        """Wait for the first actor that is loaded; the others may come later, or never."""
        failures = 0
        while True:
            ready, _ = self._ray.wait(
                [seat.waits_for for seat in self._seats], timeout=_START_SECONDS
            )
            if not ready:
                raise PreconditionError(
                    f"no worker could start on the Ray cluster in {_START_SECONDS:.0f} s",
                    hint="see `ray status`: are there free CPUs and GPUs? Lower "
                    "generation.ray_cpus_per_worker, or free some",
                )
            try:
                found: tuple[str, tuple[str, ...], dict[str, str]] = self._ray.get(ready[0])
            except self._ray.exceptions.RayTaskError as error:
                raise _cause(error) from error
            except self._ray.exceptions.RayActorError as error:
                failures += 1
                seat = next(s for s in self._seats if s.waits_for == ready[0])
                if failures >= MAX_LOSSES:
                    raise _cause(error) from error
                self._seats.remove(seat)
                self._fill()
            else:
                return found

    def _hand_out(self, waiting: deque[GenerationRequest]) -> None:
        for seat in self._seats:
            if seat.is_ready and seat.waits_for is None and waiting:
                count = min(self._settings.batch_size, len(waiting))
                batch = [waiting.popleft() for _ in range(count)]
                seat.batch = {request.input_id: request for request in batch}
                method = seat.actor.generate.options(num_returns="streaming")
                seat.waits_for = method.remote(batch)

    def _next_seat(self) -> _Seat:
        """Wait until an actor has started, delivers, or is found dead."""
        busy = [seat for seat in self._seats if seat.waits_for is not None]
        ready, _ = self._ray.wait([seat.waits_for for seat in busy], num_returns=1)
        return next(seat for seat in busy if seat.waits_for is ready[0])

    def _receive(self, seat: _Seat) -> Generated | None:
        """Return what an actor delivers; None when it has started, or its batch has ended."""
        if not seat.is_ready:
            self._ray.get(seat.waits_for)
            seat.is_ready, seat.waits_for = True, None
            return None
        try:
            reference = next(seat.waits_for)
        except StopIteration:
            seat.waits_for = None
            return None
        generated: Generated = self._ray.get(reference)
        seat.batch.pop(generated.input_id, None)
        self._losses_in_a_row = 0
        return generated

    def _replace(
        self, seat: _Seat, waiting: deque[GenerationRequest], error: BaseException
    ) -> None:
        """Give the batch of a dead actor back, and ask for another actor."""
        self.lost += 1
        self._losses_in_a_row += 1
        for input_id in seat.batch:
            self._losses[input_id] = self._losses.get(input_id, 0) + 1
        worst = max((self._losses[i] for i in seat.batch), default=0)
        if worst >= MAX_LOSSES or self._losses_in_a_row >= MAX_LOSSES * self._count:
            raise PartialError(
                f"workers of the Ray cluster died {self.lost} times: {_first_line(error)}",
                hint="see `ray status` and the workers' logs (memory?); lower "
                "generation.batch_size, then go on with --resume",
            ) from error
        waiting.extendleft(reversed(seat.batch.values()))
        self._seats.remove(seat)
        self._fill()


def _import_ray() -> Any:
    """Import Ray and keep this process's own answer to SIGTERM, which Ray replaces."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        import ray
    except ImportError as error:
        raise PreconditionError(
            "--ray needs the package ray, which this Python does not have",
            hint='pip install "ccrl[ray]", or leave out --ray',
        ) from error
    if is_main:
        signal.signal(signal.SIGTERM, before)
    return ray


def _connect(ray: Any, address: str) -> None:
    """Join a cluster; ``auto`` starts one of this machine where none runs."""
    _check_reachable(address)
    before = signal.getsignal(signal.SIGTERM)
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        try:
            ray.init(address=address, **options)
        except ConnectionError:
            if address != "auto":
                raise
            ray.init(include_dashboard=False, **options)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise PreconditionError(
            f"the Ray cluster at {address} cannot be joined: {_first_line(error)}",
            hint="start one with `ray start --head`, and name its HOST:PORT",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str) -> None:
    """Raise PreconditionError if nobody listens at HOST:PORT: Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise PreconditionError(
            f"the Ray cluster at {address} cannot be joined: {_first_line(error)}",
            hint="start one with `ray start --head`, and name its HOST:PORT",
        ) from error


def _cause(error: Any) -> BaseException:
    """Return what an actor raised: our own errors as they are, others as they reached us."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, CcrlError):
        return cause
    for kind in ("ActorDiedError", "RayActorError"):
        if type(error).__name__ == kind:
            text = str(error)
            return PreconditionError(
                f"no worker could start on the Ray cluster: {_last_line(text)}",
                hint="do all nodes have ccrl, the model's folder and enough memory?",
            )
    return error if isinstance(error, BaseException) else RuntimeError(str(error))


def _length(request: GenerationRequest) -> int:
    return sum(len(message["content"]) for prompt in request.prompts for message in prompt)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()
