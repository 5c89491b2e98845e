"""One attempt of a stored call: sent to a proxy, its answer judged, settled.

The order makes it exact: the outcome is stored first, once for each call, and only then the broker may forget the call.
A worker that dies in between finds the outcome when the call is delivered again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stoker_gateway.queue import callback_queue, kept, losses, outcomes
from stoker_gateway.queue.callback_queue import MAX_BODY
from stoker_gateway.queue.callback_request import Callback
from stoker_gateway.queue.download import MOST_DOWNLOADS, BrokenBody, Download
from stoker_gateway.queue.kept import MAX_RESULT, KeptAnswer
from stoker_gateway.queue.outcomes import MAX_ANSWER, Outcome
from stoker_gateway.queue.policy import Dead, Decision, Done, Retry, Wait, decide, is_gone, retry_after_seconds
from stoker_gateway.queue.publisher import EXISTS, RESENT, STORED, Told
from stoker_gateway.queue.stored import BadCall, StoredCall, decode, method_of
from stoker_gateway.queue.subjects import (
    OUTCOMES,
    attempt_subject,
    callback_subject,
    dead_subject,
    outcome_subject,
    result_subject,
)
from stoker_sdk.errors import Unavailable
from stoker_sdk.messages import CallAttempt
from stoker_sdk.names import DEFAULT_NAMESPACE
from stoker_sdk.units import format_rfc3339
from stoker_wire.client import AnswerHead, ClientConnection
from stoker_wire.message import Field

if TYPE_CHECKING:
    from stoker_gateway.queue.lane import Lane

log = logging.getLogger("stoker.worker")

HAND_BACK: Final = b"-NAK"
"""The word by which a worker that stops gives its calls to others."""
_AGAIN: Final = 1.0
_MOST_SURPRISES: Final = 5
"""Times that a function which is there may be said to be gone; it can say so itself."""
_RESENT: Final = f"\r\n{RESENT}: ".encode()
_random = random.Random()


class Run:
    """Receiver of a proxy's answer. `reply`, `headers` and `payload` are the broker's: the first is acknowledged."""

    def __init__(self, lane: Lane, id: str, reply: bytes, headers: bytes, payload: bytes) -> None:
        self.lane = lane
        self.id = id
        self.started = ""
        self._reply = reply
        self._payload = payload
        self._stored_at, self._deliveries, self._sequence = _delivery(reply)
        self._resent = _RESENT in headers
        self._call: StoredCall | None = None
        self._request = b""
        self._begun = 0.0
        self._connection: ClientConnection | None = None
        self._body: Download | None = None
        self._status = 0
        self._error = ""
        self._retry_after: float | None = None
        self._answer = bytearray()
        self._cut = False
        self._whole = False
        self._keep = 0.0  # seconds for which the answer is kept
        self._fields: list[Field] = []
        self._seconds = 0.0
        self._attempts: list[CallAttempt] = []
        self._noted = False
        self._over = False
        self._slot = True
        self._done_with = ""

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.lane.key} delivery {self._deliveries}>"

    # Beginning

    def begin(self) -> None:
        worker = self.lane.worker
        if self._deliveries > 1:
            worker.counting.of(self.lane.key).redelivered += 1
        if self.id in worker.cancelled:
            self._forget(b"+TERM")
            return
        try:
            self._call, self._request = decode(self._payload)
            if self._call.key != self.lane.key:
                raise BadCall("its subject and its first line name different functions")
        except BadCall as error:
            self._end(Dead(f"the message cannot be run: {error}"))
            return
        if self._deliveries > 1 or self._resent or self._sequence <= max(worker.doubtful, self.lane.doubtful):
            self.lane.look_back.ask(self)
        else:
            self._send()

    # What `look_back.py` has found

    def had_ended(self) -> None:
        if not self._over:
            self._forget(b"+ACK")

    def had_attempts(self, stored: bytes) -> None:
        """`stored` is the JSON of the attempts so far."""
        if self._over:
            return
        try:
            self._attempts = losses.closed(outcomes.decode_attempts(stored))
        except ValueError as error:
            log.warning("the attempts of call %s of %s cannot be read: %s", self.id, self.lane.key, error)
        self._begin_again()

    def cannot_look_back(self) -> None:
        self._put_back(_AGAIN)

    def _begin_again(self) -> None:
        lost = losses.count(self._attempts)
        if lost >= losses.MOST_LOST:
            self._end(losses.after(self._attempts))
        elif lost >= losses.SUSPECT and not self.lane.worker.quarantine.enter(self.id, time.monotonic()):
            self._put_back(_random.uniform(1, 5))
        elif losses.is_noted(self._deliveries, self._attempts):
            self._noted = True
            noted = outcomes.encode(losses.begun(self._attempts, _now()))
            self._store(attempt_subject(self.lane.function, self.id), noted, self._send_noted)
        else:
            self._send()

    def _send_noted(self, result: str) -> None:
        if self._over:
            return
        if result == STORED:
            self._send()
        else:
            self._put_back(_AGAIN)

    def _send(self) -> None:
        if self._call and self._call.body and len(self.lane.worker.downloads) >= MOST_DOWNLOADS:
            self._put_back(_AGAIN)
            return
        self._begun = time.monotonic()
        self._keep = (self._call.keep if self._call else 0.0) or self.lane.keep_result
        self.started = _now()
        address = self.lane.worker.proxy_for(self.lane)
        pool = self.lane.worker.pool
        connection = pool.take(address)
        if connection is not None:
            self._send_on(connection)
        else:
            pool.dial(address, self._dialled)

    def _dialled(self, connection: ClientConnection | None, reason: str) -> None:
        if self._over:
            if connection is not None:
                self.lane.worker.pool.put(connection)
        elif connection is None:
            log.debug("no proxy: %s", reason)
            self._put_back(_AGAIN)  # it is being started again
        else:
            self._send_on(connection)

    def _send_on(self, connection: ClientConnection) -> None:
        self._connection = connection
        body = self._call.body if self._call else None
        connection.send(self, self._request, head_only=method_of(self._request) == b"HEAD", more=body is not None)
        if body is not None:
            worker = self.lane.worker
            self._body = Download(worker.client, body, connection, self._body_failed, worker.downloads)

    def _body_failed(self, error: BrokenBody | Unavailable) -> None:
        """The proxy has not all of the body, so whatever it answers does not count."""
        if self._connection is not None:
            self._connection.abandon()
        self._let_go()
        if isinstance(error, BrokenBody):
            self._error = str(error)
            self._end(Dead(f"it cannot be run: {error}"))
        else:
            log.warning("call %s of %s waits: %s", self.id, self.lane.key, error)
            self._put_back(_AGAIN)

    def _let_go(self) -> None:
        self._connection = None
        if self._body is not None:
            self._body.stop()

    # The answer

    def answer(self, head: AnswerHead) -> None:
        self._status = head.status
        self._fields = head.fields
        for name, value in head.fields:
            lowered = name.lower()
            if lowered == b"x-stoker-error":
                self._error = value.decode("latin-1")
            elif lowered == b"retry-after":
                self._retry_after = retry_after_seconds(value.decode("latin-1"), time.time())

    def data(self, data: bytes) -> None:
        most = MAX_BODY if self._call and self._call.callback else MAX_RESULT if self._keep else MAX_ANSWER
        room = most - len(self._answer)
        self._answer += data[:room]
        self._cut = self._cut or len(data) > room

    def end(self) -> None:
        self._let_go()
        self._whole = True
        self._judge()

    def flush_answer(self) -> None: ...

    def hold_request(self) -> None:
        if self._body is not None:
            self._body.hold()

    def release_request(self) -> None:
        if self._body is not None:
            self._body.release()

    def switched(self, fields: list[Field], transport: asyncio.Transport, behind: bytes) -> None: ...

    def broken(self, reason: str, answered: bool) -> None:
        """The proxy has ended, or broke the answer off because its replica did."""
        self._let_go()
        if self._over:
            return
        if not answered:
            self._lose()
        else:
            self._error = self._error or reason
            self._judge(broken=True)

    def _lose(self) -> None:
        """The proxy ended. That is no fault of the function's, unless it happens again and again."""
        self._attempts = [
            *self._attempts,
            CallAttempt(len(self._attempts) + 1, self.started, _now(), reason=losses.REASON, lost=True),
        ]
        self.started = ""
        self.lane.worker.counting.attempted(self.lane.key, 0, time.monotonic() - self._begun)
        self._end(losses.after(self._attempts))

    def _judge(self, *, broken: bool = False) -> None:
        seconds = self._seconds = time.monotonic() - self._begun
        waits = max(0, self._deliveries - 1 - len(self._attempts))
        if not broken and is_gone(self._status, self._error) and not self.lane.is_gone and waits < _MOST_SURPRISES:
            self._put_back(_AGAIN)  # the proxy has heard of the removal before us
            return
        decision = decide(
            len(self._attempts) - losses.count(self._attempts) + 1,
            "error" if broken else self._status,
            self._retry_after,
            self.lane.retries,
            _random,
            stoker_error="" if broken else self._error,
            waits=waits,
        )
        if not isinstance(decision, Wait):
            self.lane.worker.counting.attempted(self.lane.key, 0 if broken else self._status, seconds)
        self.lane.learn(seconds, too_many=isinstance(decision, Wait))
        self._end(decision)

    # Settling

    def _end(self, decision: Decision) -> None:
        if self._over:
            return
        if isinstance(decision, Wait):
            self._put_back(decision.delay)
            return
        self._over = True
        self._leave_slot()
        self._note_attempt(decision)
        if isinstance(decision, Retry):
            self._keep_attempts(decision.delay)
        elif isinstance(decision, Dead):
            subject = dead_subject(self.lane.function, self.id)
            self._store(subject, self._payload, lambda result: self._dead(decision.reason, result))
        else:
            self._settle(outcomes.DONE, "")

    def _note_attempt(self, decision: Decision) -> None:
        if self.started:
            reason = "" if isinstance(decision, Done) else self._error or (f"status {self._status}")
            self._attempts = [
                *self._attempts,
                CallAttempt(len(self._attempts) + 1, self.started, _now(), self._status, reason),
            ]

    def _keep_attempts(self, delay: float) -> None:
        nak = b'-NAK {"delay": %d}' % int(delay * 1e9)
        subject = attempt_subject(self.lane.function, self.id)
        self._store(subject, outcomes.encode(self._attempts), lambda _: self._forget(nak))

    def _dead(self, reason: str, result: str) -> None:
        if result in (STORED, EXISTS):
            self._settle(outcomes.DEAD, reason)
        else:
            self._settled(result)

    def _settle(self, state: str, reason: str) -> None:
        call = self._call
        outcome = Outcome(
            id=self.id,
            key=self.lane.key,
            state=state,
            created_at=format_rfc3339(call.at if call else self._stored_at),
            started_at=self._attempts[0].started_at if self._attempts else "",
            ended_at=_now(),
            status=self._status,
            reason=reason,
            answer=self._answer[:MAX_ANSWER].decode(errors="replace") if state == outcomes.DEAD else "",
            attempts=self._attempts,
            replay_of=call.replay_of if call else "",
            result_until=format_rfc3339(time.time_ns() + int(self._keep * 1e9)) if self._keep and self._whole else "",
        )
        if outcome.result_until:
            self._store_result(outcome)
        else:
            self._store_callback(outcome)

    def _store_result(self, outcome: Outcome) -> None:
        """Before the outcome, so that a call which has ended has its result."""
        answer = KeptAnswer(kept.VERSION, self._status, kept.text_fields(self._fields), cut=self._cut)
        payload = kept.encode(answer, bytes(self._answer))
        headers = {"Nats-TTL": f"{math.ceil(self._keep)}s"}
        then = self._then(lambda: self._store_callback(outcome))
        self._store(result_subject(self.lane.function, self.id), payload, then, headers)

    def _store_callback(self, outcome: Outcome) -> None:
        """Before the outcome: a worker that is killed in between runs the call again rather than lose its callback."""
        url = self._call.callback if self._call else ""
        if not url:
            self._store_outcome(outcome)
            return
        function = self.lane.function
        name = str(function).removesuffix(f".{DEFAULT_NAMESPACE}")
        fields = [*self._fields, (b"X-Stoker-Truncated", b"true")] if self._cut else self._fields
        callback = Callback(url, self.id, name, self._status, self._seconds, fields)
        payload = callback_queue.encode(callback, bytes(self._answer))
        then = self._then(lambda: self._store_outcome(outcome))
        self._store(callback_subject(function, self.id), payload, then, {"Nats-Msg-Id": f"callback-{self.id}"})

    def _then(self, go_on: Callable[[], None]) -> Callable[[str], None]:
        """What follows when something that comes before the outcome is stored, or is not."""
        return lambda result: go_on() if result in (STORED, EXISTS) else self._settled(result)

    def _store_outcome(self, outcome: Outcome) -> None:
        subject = outcome_subject(self.lane.function, self.id)
        if outcome.state == outcomes.DONE and self._call and self._call.body and not self._call.replay_of:
            self._done_with = self._call.body.name  # a replay's belongs to the dead call
        state = {outcomes.STATE_HEADER: outcome.state}

        def stored(result: str) -> None:
            if result == STORED:
                self.lane.ended_as(outcome)
            self._settled(result)

        self._store(subject, outcomes.encode(outcome), stored, state, stream=OUTCOMES)

    def _settled(self, result: str) -> None:
        if result not in (STORED, EXISTS):
            log.error("the outcome of call %s of %s cannot be stored: %s", self.id, self.lane.key, result)
            self._forget(b'-NAK {"delay": 5000000000}')
            return
        if self._done_with and result == STORED:
            self.lane.worker.remove_body(self._done_with)
        self._forget(b"+ACK")

    def _store(
        self, subject: str, payload: bytes, done: Told, headers: dict[str, str] | None = None, *, stream: str = ""
    ) -> None:
        if not self.lane.worker.publisher.publish(subject, payload, done, headers, stream=stream):
            log.error("call %s: too much waits for the broker", self.id)
            self._forget(b'-NAK {"delay": 5000000000}')

    def _put_back(self, delay: float) -> None:
        """Nothing has run: deliver it again, later."""
        if self._over:
            return
        if self._noted:  # that it begins, which it has not
            self._over = True
            self._keep_attempts(delay)
        else:
            self._forget(b'-NAK {"delay": %d}' % int(delay * 1e9))

    def _forget(self, word: bytes) -> None:
        self._over = True
        self.lane.worker.quarantine.leave(self.id)
        self._leave_slot()
        self.lane.worker.publisher.tell(self._reply, word)
        if word == b"+ACK":
            self.lane.sweep.ended(self._sequence)
        self.lane.ended(self)

    def _leave_slot(self) -> None:
        if self._slot:
            self._slot = False
            self.lane.answered()

    # From outside

    def delivered_again(self, reply: bytes) -> None:
        """The broker thought us dead. The later delivery is the one that is acknowledged."""
        self._reply = reply

    def still_running(self) -> None:
        self.lane.worker.publisher.tell(self._reply, b"+WPI")

    def abandon(self, word: bytes) -> None:
        """Close its connection, by which the function's side learns of it, and tell the broker this."""
        if self._over:
            return
        if self._connection is not None:
            self._connection.abandon()
        self._let_go()
        if self._noted and word == HAND_BACK:
            self._put_back(0)
        else:
            self._forget(word)


def _delivery(reply: bytes) -> tuple[int, int, int]:
    """When the message was stored (Unix, ns), the number of this delivery, and its sequence, from `$JS.ACK.…`."""
    parts = reply.split(b".")
    offset = 2 if len(parts) >= 11 else 0  # with a domain and an account's hash
    try:
        return int(parts[7 + offset]), int(parts[4 + offset]), int(parts[5 + offset])
    except (IndexError, ValueError):
        return 0, 2, 0


def _now() -> str:
    return format_rfc3339(time.time_ns())
