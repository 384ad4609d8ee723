# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""From the message bus to a handler, without losing what was sent.

Every listener of one pool reads the same queue, whose name is the pool's and
which oslo.messaging binds to each exchange and topic. It is neither durable
nor deleted by itself: it fills while no listener runs, and goes with the
broker unless ``[oslo_messaging_rabbit] amqp_durable_queues`` is set. The
senders declare the queues without pool (``notifications.info`` and so on) as
well, and those grow for ever unless somebody reads them: at least one
listener without pool (Ceilometer, for one) or a TTL policy on the broker is
needed.

Notifications are sent at most once; what is lost on the way is found by the
periodic comparison with Neutron and Nova, not here.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import datetime
import operator
import queue
import threading
import time
from typing import Any
from typing import Protocol

from oslo_config import cfg
from oslo_log import log
import oslo_messaging
from oslo_messaging.notify import listener
from oslo_messaging import opts
from oslo_messaging import transport as messaging_transport

from vmip_plugin import bus
from vmip_plugin import exceptions
from vmip_plugin import health
from vmip_plugin import metrics
from vmip_plugin.notifications import aside
from vmip_plugin.notifications import event
from vmip_plugin.notifications import neutron
from vmip_plugin.notifications import nova
from vmip_plugin.notifications import nova_versioned

LOG = log.getLogger(__name__)

Normaliser = Callable[[Mapping[str, object], str, str, object,
                       Mapping[str, object]], event.Event | None]

#: Which module reads an event type; all others are of no concern.
NORMALISERS: Mapping[str, Normaliser] = {
    event_type: module.normalise
    for module in (neutron, nova, nova_versioned)
    for event_type in module.EVENT_TYPES}

#: After these a handler is called again with the same events.
RETRYABLE = (exceptions.InventoryUnavailable, exceptions.CloudUnavailable)

_RABBIT = 'oslo_messaging_rabbit'

#: Kind, in the metrics, of a message that none of the normalisers took.
OTHER = 'other'
#: Most seconds that a batch takes: all its questions end with a time-out.
_BATCH_LIMIT = 600.0
#: Messages a second from which on a batch waits until it is full.
RUSH = 1000.0


class Handler(Protocol):
    """Who acts on events."""

    def handle(self, events: Sequence[event.Event]) -> None:
        """Act on events, in the order in which they came.

        When this returns, what they caused is committed: then the messages
        are acknowledged. The same events may come again, so this has to be
        idempotent.

        :raises InventoryUnavailable: try again later.
        :raises CloudUnavailable: try again later.
        """


@dataclasses.dataclass
class Stats:
    """Messages counted since the start.

    ``received`` is the sum of the others, apart from a batch in hand. A
    message that comes again after it was requeued is counted again.
    """

    received: int = 0
    ignored: int = 0
    handled: int = 0
    poisoned: int = 0
    requeued: int = 0


# What oslo.messaging itself tells nobody: kombu's connection, in the listener
# of its driver for RabbitMQ.
_CONNECTED = operator.attrgetter(
    '_poll_style_listener.conn.connection.connection.connected')


def get_transport(
        conf: cfg.ConfigOpts) -> messaging_transport.NotificationTransport:
    """Return the transport of the notifications, with a limited prefetch.

    By default RabbitMQ sends a consumer all it has, and a long backlog would
    fill the memory.

    :raises ConfigError: transport_url makes no sense.
    """
    for group, options in opts.list_opts():
        if getattr(group, 'name', group) == _RABBIT:
            conf.register_opts(options, group=_RABBIT)
    conf.set_default('rabbit_qos_prefetch_count',
                     2 * conf.listener.batch_size, group=_RABBIT)
    return bus.notification_transport(conf)


def _reason(exc: Exception) -> str:
    """Return what an exception says, as far as it is safe in a log."""
    try:
        return aside.brief(str(exc))
    except Exception:
        # what it says has a part of the message that cannot be said
        return ''


def _count(batch: Iterable[tuple[Any, event.Event]], outcome: str) -> None:
    for kind, count in collections.Counter(
            found.kind for _, found in batch).items():
        metrics.EVENTS.labels(kind.value, outcome).inc(count)


class _Server(listener.BatchNotificationServer):
    """Hands over at once all that came while the last batch was handled.

    The stock server fills a batch for a fixed time. Where that is short,
    batches are small just when there is much to do; where it is long, a
    message waits although there is nothing to do.

    In a rush even these are small: to receive a message takes longer than to
    handle it, and both share the interpreter. A batch costs much the same
    whatever its size, so it is then filled before it is handed over.
    """

    def __init__(self, transport: messaging_transport.NotificationTransport,
                 targets: Sequence[oslo_messaging.Target],
                 dispatcher: 'Listener', group: cfg.ConfigOpts.GroupAttr,
                 ) -> None:
        super().__init__(
            transport, targets, dispatcher, 'threading', allow_requeue=True,
            pool=group.pool, batch_size=group.batch_size,
            batch_timeout=group.batch_timeout)
        self._size = group.batch_size
        self._timeout = group.batch_timeout
        self._come: queue.SimpleQueue[Sequence[Any]] = queue.SimpleQueue()

    def ask(self, call: Callable[[], object]) -> None:
        """Have the thread that handles batches make a call."""
        if self._work_executor is None:
            # it waits for the bus yet
            call()
        else:
            self._work_executor.submit(call)

    def _on_incoming(self, incoming: Sequence[Any]) -> None:
        self._come.put(incoming)
        self._work_executor.submit(self._process_all)

    def _process_all(self) -> None:
        batch: list[Any] = []
        rush = False
        try:
            while len(batch) < self._size:
                come = self._come.get(
                    timeout=2 * self._timeout if rush else 0)
                rush = len(come) >= RUSH * self._timeout
                batch.extend(come)
        except queue.Empty:
            pass
        if batch:
            self._process_incoming(batch)


class Listener:
    """Hands the notifications of Nova and Neutron to a handler, in batches.

    It is its own oslo.messaging dispatcher. The stock one looks for a batch's
    priorities before any endpoint is asked, and one forged message without a
    proper priority makes it requeue the whole batch, at once and for ever; it
    also sorts the messages by priority and can only requeue all of them.

    :param conf: with the options of :mod:`vmip_plugin.conf.listener`.
    :param transport: as :func:`get_transport` returns it.
    :param handler: called by one thread at a time.
    :param patience: seconds for which a batch is tried again before it goes
        back to the broker.
    :raises NotImplementedError: the transport cannot requeue or has no pools.
    """

    #: build_instances comes as error, everything else as info
    supported_priorities = ('info', 'error')

    def __init__(self, conf: cfg.ConfigOpts,
                 transport: messaging_transport.NotificationTransport,
                 handler: Handler, patience: float = 60) -> None:
        self.stats = Stats()
        self._aside = aside.Aside(conf.listener.poison_dir,
                                  conf.listener.poison_limit)
        self._handler = handler
        self._patience = patience
        self._stopping = threading.Event()
        group = conf.listener
        targets = [
            oslo_messaging.Target(exchange=exchange, topic=topic)
            for exchanges, topics in (
                (group.neutron_exchanges, group.topics),
                (group.nova_exchanges, group.topics),
                (group.nova_exchanges, group.versioned_topics))
            for exchange in exchanges for topic in topics]
        self._server = _Server(transport, targets, self, group)
        # what was never seen at 0 is not seen to grow to 1
        for kind in (OTHER, *(kind.value for kind in event.Kind)):
            for outcome in ('handled', 'poisoned', 'requeued'):
                metrics.EVENTS.labels(kind, outcome)
        for who in ('cloud', 'database'):
            metrics.EVENT_RETRIES.labels(who)
        self.pulse = health.Pulse('handler', _BATCH_LIMIT, lambda: (
            self._server.ask(self.pulse.beat)))

    def start(self) -> None:
        """Begin to listen, in threads of our own."""
        self._stopping.clear()
        # one worker keeps the batches in order
        self._server.start(override_pool_size=1)

    def stop(self) -> None:
        """Listen no more. A batch that waits for its next try goes back."""
        self._stopping.set()
        self._server.stop()

    def wait(self) -> None:
        """Return when, after :meth:`stop`, the batch in hand is done."""
        self._server.wait()

    def check_bus(self) -> str | None:
        """Tell why no notification can come; None: they can.

        None also where the driver of the transport cannot tell.
        """
        if self._server.listener is None:
            return 'the message bus has not been reached yet'
        try:
            connected = _CONNECTED(self._server.listener)
        except AttributeError:
            return None
        return None if connected else 'the message bus cannot be reached'

    def dispatch(self, incoming: Sequence[Any]) -> set[Any]:
        """Handle a batch, and return the messages that go back.

        Called by oslo.messaging, which acknowledges the others.
        """
        self.stats.received += len(incoming)
        ignored = self.stats.ignored
        batch = [(message, found) for message in incoming
                 if (found := self._normalise(message)) is not None]
        metrics.EVENTS.labels(OTHER, 'ignored').inc(
            self.stats.ignored - ignored)
        now = datetime.datetime.now(datetime.UTC)
        for _, found in batch:
            if found.emitted is not None:
                # any clock may be wrong, and any message forged
                age = (now - found.emitted).total_seconds()
                metrics.EVENT_AGE.observe(min(max(0, age), metrics.LONGEST))
        back = self._deliver(batch)
        self.stats.requeued += len(back)
        self.pulse.beat()
        return set(back)

    def _normalise(self, message: Any) -> event.Event | None:
        content = message.message
        if not isinstance(content, Mapping):
            content = {}
        event_type = content.get('event_type')
        # a forged type may be a list, which has no hash
        normalise = (NORMALISERS.get(event_type)
                     if isinstance(event_type, str) else None)
        if normalise is None:
            self.stats.ignored += 1
            return None
        try:
            found = normalise(message.ctxt, content.get('publisher_id'),
                              event_type, content.get('payload'), content)
        except Exception as exc:
            # whatever it is: oslo.messaging would requeue it for ever
            self._put_aside(message, OTHER, exc)
            return None
        if found is None:
            self.stats.ignored += 1
        return found

    def _put_aside(self, message: Any, kind: str, exc: Exception) -> None:
        self.stats.poisoned += 1
        metrics.EVENTS.labels(kind, 'poisoned').inc()
        content = message.message
        why = f'{type(exc).__name__}: {_reason(exc)}'
        LOG.error('Notification %s (%s) is put aside, %d since the start: %s',
                  aside.brief(content.get('message_id')),
                  aside.brief(content.get('event_type')),
                  self.stats.poisoned, why)
        if not isinstance(exc, event.Malformed):
            LOG.debug('Why it is put aside:', exc_info=exc)
        self._aside.keep(content, why)

    def _deliver(self, batch: Sequence[tuple[Any, event.Event]]) -> list[Any]:
        """Have a batch handled, and return the messages that go back."""
        if not batch:
            return []
        try:
            self._handle([found for _, found in batch])
        except RETRYABLE:
            _count(batch, 'requeued')
            return [message for message, _ in batch]
        except Exception as exc:
            if len(batch) == 1:
                message, found = batch[0]
                self._put_aside(message, found.kind.value, exc)
                return []
        else:
            self.stats.handled += len(batch)
            _count(batch, 'handled')
            return []
        # one of them is poison: alone it takes no other with it
        half = len(batch) // 2
        back = self._deliver(batch[:half])
        if not back:
            return self._deliver(batch[half:])
        # while nothing can be handled, the ones behind are not even tried
        _count(batch[half:], 'requeued')
        return back + [message for message, _ in batch[half:]]

    def _handle(self, events: Sequence[event.Event]) -> None:
        """Call the handler until it could do its work.

        oslo.messaging's requeueing has neither a pause nor an end, so the
        pauses are made here, with the messages still unacknowledged.
        """
        give_up = time.monotonic() + self._patience
        pause = 0.1
        while True:
            try:
                return self._handler.handle(events)
            except RETRYABLE as exc:
                metrics.EVENT_RETRIES.labels(
                    'cloud' if isinstance(exc, exceptions.CloudUnavailable)
                    else 'database').inc()
                left = give_up - time.monotonic()
                LOG.warning('%d notifications wait: %s: %s', len(events),
                            type(exc).__name__, _reason(exc))
                if left <= 0 or self._stopping.wait(min(pause, left)):
                    raise
                pause = min(2 * pause, 5)
