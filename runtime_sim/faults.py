"""Makes the faults of a plan happen, ends them, and counts those that took effect.

A fault took effect when it hit something: a crash a running process, a partition a message, an error an
operation. It must never act but through what a kernel, a network or a power cut can do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import attrs

from flussd.runtime_sim.draws import Stream
from flussd.runtime_sim.network import Cut, Network, Partition
from flussd.runtime_sim.nodes import Node
from flussd.runtime_sim.plan import AFTER, Fault, FaultKind
from flussd.runtime_sim.world import MS, World

MOMENT_US: Final = 6 * MS
"""A power loss that comes after an effect comes this much later at most: while a disk syncs, as a rule."""


@attrs.define(eq=False, repr=False)
class Faults:
    """The faults of one run; *names* numbers every node, clients included."""

    world: World
    network: Network
    nodes: dict[str, Node]
    names: dict[str, int]
    on_power_cut: Callable[[Node], None] = lambda _: None
    effective: dict[int, FaultKind] = attrs.Factory(dict)  # place in the plan -> its kind
    is_over: bool = False
    _ends: dict[int, Callable[[], None]] = attrs.Factory(dict)  # of faults that last

    def schedule(self, plan: Sequence[Fault]) -> None:
        """Let the faults of *plan* happen from now on."""
        for n, fault in enumerate(plan):
            at_us = self.world.now_us + fault.at_ms * MS
            self.world.planned(at_us, n, self._begin, n, fault)

    def quiesce(self) -> None:
        """End everything that lasts: from now on nothing goes wrong any more."""
        self.is_over = True
        for n in list(self._ends):
            self._end(n)
        for node in self.nodes.values():
            node.disk.errors.clear()
            if node.process is not None:
                node.process.effects_left = -1
        self.world.story.line(self.world.now_us, "-", "quiesce", "no more faults")

    def _begin(self, n: int, fault: Fault) -> None:
        if self.is_over:
            return  # what a plan has behind the end of all faults (seed 1767)
        what = f"{fault.kind.value} {','.join(fault.nodes)}"
        text = f"{what} for_ms={fault.for_ms} count={fault.count} {fault.how}"
        self.world.story.line(self.world.now_us, "-", "fault", text)
        self.BEGIN[fault.kind](self, n, fault)

    def _hit(self, n: int, fault: Fault) -> None:
        if n not in self.effective:
            self.effective[n] = fault.kind
            self.world.delivered(-1, (n, fault.kind))

    def _lasting(self, n: int, for_ms: int, end: Callable[[], None]) -> None:
        self._ends[n] = end
        self.world.after(for_ms * MS, self._end, n)

    def _end(self, n: int) -> None:
        end = self._ends.pop(n, None)
        if end is not None:
            self.world.story.line(self.world.now_us, "-", "fault", f"number {n} is over")
            end()

    def _servers(self, fault: Fault) -> list[Node]:
        return [self.nodes[name] for name in fault.nodes if name in self.nodes]

    # ---- deaths --------------------------------------------------------------------------------

    def _crash(self, n: int, fault: Fault) -> None:
        for node in self._servers(fault):
            if node.process is not None:
                self._order_death(n, fault, node, node.crash)

    def _power(self, n: int, fault: Fault) -> None:
        for node in self._servers(fault):
            self._order_death(n, fault, node, node.cut_power)

    def _order_death(self, n: int, fault: Fault, node: Node, die: Callable[[], None]) -> None:
        def dies() -> None:
            self._hit(n, fault)
            node.restart_after_us = fault.for_ms * MS
            if fault.kind is FaultKind.POWER:
                self.on_power_cut(node)
            die()

        # The whole cluster loses power at one moment; else a death may wait for some effect.
        process = node.process
        if process is None or not fault.count or len(fault.nodes) > 1:
            dies()
        elif fault.how == AFTER:
            process.effects_left = fault.count
            moment_us = Stream.of(self.world.seed, "moment", n).long_tail(0, MOMENT_US)

            def dies_there() -> None:
                if node.process is process and not self.is_over:
                    dies()

            process.on_last_effect = lambda: self.world.after(moment_us, dies_there)
        else:
            process.effects_left = fault.count
            process.on_death = dies

    def _stop(self, n: int, fault: Fault) -> None:
        """Ask for an orderly stop; the process ends when its machine says so."""
        for node in self._servers(fault):
            if node.process is not None:
                self._hit(n, fault)
                node.restart_after_us = fault.for_ms * MS
                node.process.enter(node.process.driver.stop)

    def _pause(self, n: int, fault: Fault) -> None:
        for node in self._servers(fault):
            process = node.process
            if process is not None and not process.is_paused:
                process.is_paused = True
                self._hit(n, fault)
                self._lasting(n, fault.for_ms, process.go_on)

    # ---- network -------------------------------------------------------------------------------

    def _partition(self, n: int, fault: Fault) -> None:
        side = tuple(self.names[name] for name in fault.nodes)
        partition = Partition(
            side, Cut.HOLD if fault.how == "hold" else Cut.DROP, lambda: self._hit(n, fault)
        )
        self.network.part(partition)
        self._lasting(n, fault.for_ms, lambda: self.network.heal(partition))

    def _reset(self, n: int, fault: Fault) -> None:
        number = self.names[fault.nodes[0]]
        draws = Stream.of(self.world.seed, "reset", n)
        for connection in list(self.network.connections.values()):
            if number in (connection.ends[0].node, connection.ends[1].node) and draws.chance(600_000):
                self.network.reset(connection, half_open=fault.how == "half")
                self._hit(n, fault)

    # ---- disks and clocks ----------------------------------------------------------------------

    def _io_error(self, n: int, fault: Fault) -> None:
        for node in self._servers(fault):
            disk = node.disk
            disk.errors[fault.how] = fault.count
            disk.on_hit[f"io_{fault.how}"] = lambda: self._hit(n, fault)
            self._lasting(n, fault.for_ms, lambda disk=disk: disk.errors.pop(fault.how, None))  # type: ignore[misc]

    def _disk_full(self, n: int, fault: Fault) -> None:
        for node in self._servers(fault):
            disk = node.disk
            disk.full_until_us = self.world.now_us + fault.for_ms * MS
            disk.full_refuses_all = fault.how == "all"
            disk.on_hit["disk_full"] = lambda: self._hit(n, fault)
            self._lasting(n, fault.for_ms, lambda disk=disk: setattr(disk, "full_until_us", -1))  # type: ignore[misc]

    def _read_only(self, n: int, fault: Fault) -> None:
        for node in self._servers(fault):
            disk = node.disk
            disk.read_only_until_us = self.world.now_us + fault.for_ms * MS
            disk.on_hit["read_only"] = lambda: self._hit(n, fault)
            self._lasting(n, fault.for_ms, lambda disk=disk: setattr(disk, "read_only_until_us", -1))  # type: ignore[misc]

    def _slow_disk(self, n: int, fault: Fault) -> None:
        for node in self._servers(fault):
            disk = node.disk
            disk.slow_until_us, disk.slow_factor = self.world.now_us + fault.for_ms * MS, fault.count
            disk.on_hit["slow_disk"] = lambda: self._hit(n, fault)
            self._lasting(n, fault.for_ms, lambda disk=disk: setattr(disk, "slow_until_us", -1))  # type: ignore[misc]

    def _clock_jump(self, n: int, fault: Fault) -> None:
        for node in self._servers(fault):
            node.clock.wall_offset_ms += fault.count
            self._hit(n, fault)

    BEGIN: ClassVar[dict[FaultKind, Callable[[Faults, int, Fault], None]]] = {
        FaultKind.CRASH: _crash,
        FaultKind.POWER: _power,
        FaultKind.STOP: _stop,
        FaultKind.PAUSE: _pause,
        FaultKind.PARTITION: _partition,
        FaultKind.RESET: _reset,
        FaultKind.IO_ERROR: _io_error,
        FaultKind.DISK_FULL: _disk_full,
        FaultKind.READ_ONLY: _read_only,
        FaultKind.SLOW_DISK: _slow_disk,
        FaultKind.CLOCK_JUMP: _clock_jump,
    }
