"""The couriers of all channels of a configuration, each served by its thread, and those of the one before that."""

import logging
from collections.abc import Iterator

from agent.config.load import channels
from agent.core.dispatch import rules_of
from agent.core.settings import Settings
from agent.core.status import Channel
from agent.service import threads
from agent.service.courier import Courier, absent
from agent.service.outside import Outside
from agent.service.status import channel_of
from agent.store import Outbox

log = logging.getLogger("sockmem-agent")

# A POST may take its whole deadline; a courier without progress for longer than this is stuck.
PATIENCE_SECONDS = 90.0
NO_ROOM = "TasksMax= leaves no threads for these channels"


class Couriers:
    """Made anew for each configuration; ChannelError when a channel cannot work as configured."""

    def __init__(self, settings: Settings, outbox: Outbox, outside: Outside) -> None:
        self.channels = channels(settings)
        self._settings, self._outbox, self._outside = settings, outbox, outside
        self._notifiers = [outside.build(channel) for channel in self.channels]
        self._served: list[Courier] = []
        self._leaving: list[Courier] = []
        self._unserved = ""

    def __iter__(self) -> Iterator[Courier]:
        return iter(self._served)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the channels that are configured."""
        return tuple(channel.name for channel in self.channels)

    @property
    def trouble(self) -> str | None:
        """Which channels have no courier, and why."""
        return f"{NO_ROOM}: {self._unserved}" if self._unserved else None

    @property
    def statuses(self) -> list[str]:
        """What is wrong with each channel, and which one hangs."""
        found = [status for courier in self if (status := courier.status)]
        return found + [f"{courier.name}: hangs in an attempt" for courier in self if self._hangs(courier)]

    @property
    def published(self) -> list[Channel]:
        """What status.json says of each channel."""
        types = {channel.name: channel.type for channel in self.channels}
        return [channel_of(courier, types, hangs=self._hangs(courier)) for courier in self]

    def take_over(self, before: "Couriers | None" = None) -> None:
        """Begin, with what channels that are no longer configured owe; those ``before`` end after their step."""
        self._leaving = before.leave() if before else []
        make = self._outside.make_courier
        couriers = [
            make(notifier, self._outbox, rules_of(channel))
            for notifier, channel in zip(self._notifiers, self.channels, strict=True)
        ]
        gone = self._outbox.owing() - set(self.names)
        couriers += [absent(name, self._outbox, make) for name in sorted(gone)]
        predecessors = {courier.name: courier for courier in self._leaving}
        for courier in couriers:
            if courier.name in predecessors:
                courier.succeed(predecessors[courier.name])
        self._served = couriers[: self._room()]
        self._unserved = ", ".join(courier.name for courier in couriers[len(self._served) :])
        if self._unserved:
            log.error("%s: %s; see sockmem-agent config check", NO_ROOM, self._unserved)

    def serve(self) -> None:
        """Start them, each after its predecessor has ended: two must not send one notice."""
        self._leaving = [courier for courier in self._leaving if courier.thread.is_alive()]
        leaving = {courier.name for courier in self._leaving}
        for courier in self:
            if courier.name not in leaving:
                courier.thread.start()

    def wake(self) -> None:
        """Hint that there is something new."""
        for courier in self:
            courier.thread.wake()

    def leave(self) -> list[Courier]:
        """Ask all to end; return those that may not have yet."""
        self.stop(seconds=0.0)
        return [*self._leaving, *self]

    def stop(self, seconds: float) -> None:
        """Ask all to end, and wait for them; they share one deadline."""
        deadline = self._outside.monotonic() + seconds
        for courier in (*self, *self._leaving):
            courier.thread.stop(max(0.0, deadline - self._outside.monotonic()))

    def _hangs(self, courier: Courier) -> bool:
        return courier.thread.last_progress <= self._outside.monotonic() - PATIENCE_SECONDS

    def _room(self) -> int | None:
        """Return how many channels have threads: were all started, none would have one for its POST."""
        allowed = threads.allowed()
        if allowed is None:
            return None
        return max(0, allowed - threads.needed(self._settings.source, 0)) // threads.EACH_CHANNEL
