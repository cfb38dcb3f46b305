"""Runs a policy for many conversations at once; batches requests of different conversations if the policy allows."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import check_actions
from vla_gen_bench.policies.remote.wire import WireError
from vla_gen_bench.policies.serving.requests import BadRequest, Request
from vla_gen_bench.protocol import EXTERNAL, Needs, Observation

IDLE_S = 60.0  # a client without a connection that sends nothing for this long is probably gone


@dataclass
class Session:
    """One episode of one conversation.

    Attributes:
        instruction: May be empty, as in a suite's rows without one; None until the client has sent one.
        step: Completed control steps: reported by this project's clients, counted for others.
        frames: Camera -> the latest images, for policies that need a history.
        loose: It has no connection, whose end would show that the client is gone.
        waiting: Requests that are not answered yet.
        last_s: Time of the last answer, of `time.monotonic`.
        lost: Its instance was given to another session; the client does not know yet.
    """

    number: int
    loose: bool = False
    episode: Any = None
    instruction: str | None = None
    seed: int = 0
    step: int = 0
    fresh: bool = True
    policy: Any = None
    frames: dict[str, deque] = field(default_factory=dict)
    waiting: int = 0
    last_s: float = 0.0
    lost: bool = False

    @property
    def text(self) -> str:
        """The instruction for the policy."""
        return self.instruction or ""

    @property
    def idle(self) -> bool:
        """Whether it has neither an instance nor a request to answer."""
        return self.policy is None and not self.waiting

    @property
    def abandoned(self) -> bool:
        """Whether the client is probably gone without a word: it has no connection, and has been idle for long."""
        return self.loose and not self.waiting and time.monotonic() - self.last_s >= IDLE_S


@dataclass
class _Waiting:
    session: Session
    request: Request
    answer: asyncio.Future


class Engine:
    """Acts for sessions.

    A policy with an attribute `memoryless = True` depends only on instruction, seed and the current observation. It
    is reset before every call, and any sessions share a batch. Any other policy keeps episode state, so every session
    has its own instance, at most `instances` in total. If they run out, the session abandoned for longest gives up its
    own; if its client comes back all the same, the next request is refused.

    Args:
        make: Builds a policy.
        label: The policy's name in errors.
        batch: Largest number of sessions per policy call; only images of equal size share a batch.
        wait_s: How long a request waits for others to share its batch. At 0, requests share a batch if they arrived
            during the previous batch's computation.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        label: str,
        needs: Needs,
        batch: int = 16,
        wait_s: float = 0.0,
        instances: int = 16,
    ) -> None:
        self._make, self._label, self.needs = make, label, needs
        self._batch, self._wait_s, self._instances = batch, wait_s, instances
        self.policy = make()
        self.spec = self.policy.action_spec
        self.memoryless = bool(getattr(self.policy, "memoryless", False))
        self._spare: list[Any] = [self.policy]
        self._made, self._sessions = 1, 0
        self._holders: dict[int, Session] = {}  # the loose sessions that have an instance, by number
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._last: list[tuple[str, int]] = []  # the episodes a memoryless policy was reset for
        self._thread = ThreadPoolExecutor(1, "policy")
        self.served = 0

    def open(self, loose: bool = False) -> Session:
        """Returns a new session."""
        self._sessions += 1
        return Session(self._sessions, loose)

    def close(self, session: Session) -> None:
        """Releases the session's resources."""
        self._holders.pop(session.number, None)
        if session.policy is not None:
            self._spare.append(session.policy)
            session.policy = None

    def begin(self, session: Session, instruction: str | None, seed: int, episode: Any = None) -> None:
        """Starts an episode and discards earlier state."""
        session.instruction, session.seed, session.episode = instruction, seed, episode
        session.step, session.fresh, session.frames, session.lost = 0, True, {}, False

    async def act(self, session: Session, request: Request) -> np.ndarray:
        """Returns float32 [K, 7].

        Raises:
            BadRequest: All instances are in use by other sessions, or the session has lost its own.
            PolicyError: The policy failed or returned invalid actions.
        """
        session.waiting += 1
        try:
            if not self.memoryless:
                await self._equip(session)
            self._note(session, request)
            waiting = _Waiting(session, request, asyncio.get_running_loop().create_future())
            await self._queue.put(waiting)
            actions = await waiting.answer
        finally:
            session.waiting -= 1
            session.last_s = time.monotonic()
        session.step += self.spec.execution_horizon
        return actions

    async def _equip(self, session: Session) -> None:
        """Gives the session an instance if it has none."""
        if session.lost:
            session.lost = False  # reported once: if the client continues all the same, it starts a new episode
            raise BadRequest(
                f"{self._label} keeps its episodes inside; the instance of this one, idle for {IDLE_S:g} s, went to "
                "another; start 'vgb serve' with more --instances"
            )
        if session.policy is None:
            policy = await self._instance()
            if session.policy is not None:  # another request of the session was faster
                self._spare.append(policy)
                return
            session.policy = policy
            if session.loose:
                self._holders[session.number] = session

    def _release_abandoned(self) -> None:
        """Frees the instance of the session that was abandoned first, if there is one."""
        abandoned = [session for session in self._holders.values() if session.abandoned]
        if abandoned:
            session = min(abandoned, key=lambda session: session.last_s)
            self.close(session)
            self.begin(session, session.instruction, session.seed, session.episode)
            session.lost = True

    async def _instance(self) -> Any:
        if not self._spare and self._made >= self._instances:
            self._release_abandoned()
        if self._spare:
            return self._spare.pop()
        if self._made >= self._instances:
            raise BadRequest(
                f"{self._label} keeps its episodes inside, and all {self._instances} instances are in use; "
                "start 'vgb serve' with more --instances"
            )
        self._made += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._make)
        except BaseException:
            self._made -= 1
            raise

    def _note(self, session: Session, request: Request) -> None:
        """Stores the images, and fills in the history for clients that do not send one."""
        if self.needs.history > 1:
            for camera, image in request.images.items():
                frames = session.frames.setdefault(camera, deque(maxlen=self.needs.history))
                frames.extend([image] * (self.needs.history if not frames else 1))
                request.history.setdefault(camera, np.stack(frames))

    async def run(self) -> None:
        """Serves the queue until it is cancelled."""
        while True:
            group = await self._gather()
            for part in self._parts(group):
                await self._answer(part)

    async def _answer(self, part: list[_Waiting]) -> None:
        """Computes a batch and answers its requests; if it fails, each alone, so that only a bad one gets an error."""
        try:
            actions = await asyncio.get_running_loop().run_in_executor(self._thread, self._compute, part)
        except Exception as error:  # any exception of a policy goes to the requests' senders
            if len(part) > 1:  # then the policy is memoryless: a second computation changes nothing
                for waiting in part:
                    await self._answer([waiting])
            elif not part[0].answer.done():
                part[0].answer.set_exception(error)
        else:
            self.served += len(part)
            for waiting, chunk in zip(part, actions, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(chunk)

    async def _gather(self) -> list[_Waiting]:
        """Waits for a first request; returns it with all others that are queued or arrive within `wait_s`."""
        group = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + self._wait_s
        while len(group) < self._batch:
            left = deadline - asyncio.get_running_loop().time()
            try:
                group.append(self._queue.get_nowait() if left <= 0 else await asyncio.wait_for(self._queue.get(), left))
            except (asyncio.QueueEmpty, asyncio.TimeoutError):
                break
        return group

    def _parts(self, group: list[_Waiting]) -> list[list[_Waiting]]:
        """Splits requests into batches for one policy call: equal image sizes and a memoryless policy."""
        if not self.memoryless:
            return [[waiting] for waiting in group]
        parts: dict[tuple, list[_Waiting]] = {}
        for waiting in group:
            parts.setdefault(tuple(image.shape for image in waiting.request.images.values()), []).append(waiting)
        return list(parts.values())

    def _compute(self, part: list[_Waiting]) -> np.ndarray:
        """Queries the policy; runs in the policy's thread."""
        sessions = [waiting.session for waiting in part]
        policy = self.policy if self.memoryless else sessions[0].policy
        episodes = [(session.text, session.seed) for session in sessions]
        new = episodes != self._last if self.memoryless else sessions[0].fresh
        self._last = []  # after an error, the next call resets the policy, whatever its episodes
        if new:
            policy.reset(*map(list, zip(*episodes, strict=True)))
        for session in sessions:
            session.fresh = False
        actions = policy.act(_observation(part))
        check_actions(self._label, actions, len(part), self.spec)
        self._last = episodes
        return actions.copy()


def _observation(part: list[_Waiting]) -> Observation:
    requests, sessions = [waiting.request for waiting in part], [waiting.session for waiting in part]
    images = {camera: np.stack([request.images[camera] for request in requests]) for camera in requests[0].images}
    shape = next(iter(images.values())).shape
    return Observation(
        images.pop(EXTERNAL) if EXTERNAL in images else np.zeros(shape, np.uint8),
        tuple(session.text for session in sessions),
        np.array([session.step for session in sessions], np.int64),
        state=None if requests[0].state is None else np.stack([request.state for request in requests]),
        other_images=images,
        history={camera: np.stack([request.history[camera] for request in requests]) for camera in requests[0].history},
    )


def failure_text(error: BaseException) -> str:
    """Returns the failure message for clients: the text of an error meant for users, else only the error's type.

    No traceback, and no text of other errors, which may hold paths of this machine.
    """
    if isinstance(error, BadRequest | WireError | UserError):
        return str(error)
    return f"the policy raised {type(error).__name__}; the server's own output tells more"
