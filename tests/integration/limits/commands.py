"""The commands of the plain model, one function each, as `bridge.limits.scripts` has them."""

from __future__ import annotations

import math

from bridge.limits.answers import Ask, Parcel
from tests.integration.limits.model import RETOLD, Model, Run, Told, slots_of, split


def admit(model: Model, ask: Ask, parcel: Parcel | None, epoch: str) -> Told:
    run = model.runs.get(ask.member)
    if model.ready_at is None:
        return Told("unknown")
    if run and run.state == "granted":
        _not_granted(model, ask.member)
        model.hold(ask.member, run.holder, run.lane, ask.worker)
        return Told("run", holder=run.holder)
    if run and run.state == "held":
        return Told("spare")
    if run.state in ("waiting", "ending", "done") if run else ask.parked_under == epoch:
        return Told("duplicate")
    alone = ask.lane not in model.lines
    closed = model.closing(ask.lane, ask.units, (ask.priority, math.inf)) if alone else "behind others"
    if closed and ask.mode == "drop":
        model.runs.pop(ask.member, None)
        return Told("dropped", gate=closed if alone else model.at[ask.lane])
    if closed and parcel is None:
        return Told("full", gate=closed)
    number = run.number if run else model.number()
    new = model.runs[ask.member] = Run("new", ask.lane, ask.units, ask.priority, number)
    if not closed:
        new.holder = model.take(ask.member, ask.lane, ask.units)
        model.hold(ask.member, new.holder, ask.lane, ask.worker)
        return Told("run", holder=new.holder)
    assert parcel is not None
    return _park(model, ask, parcel)


def _park(model: Model, ask: Ask, parcel: Parcel) -> Told:
    run = model.runs[ask.member]
    run.message, run.queue = parcel.message.decode(), parcel.queue
    if parcel.expires_at:
        model.ending[ask.member] = parcel.expires_at
    model.line_up(ask.member)
    if holder := model.wake(split(ask.lane), here=(ask.member, ask.worker)):
        return Told("run", holder=holder)
    line, gate = model.lines[ask.lane], model.at[ask.lane]
    told = Told("waiting", gate=gate, position=line.index(ask.member) + 1)
    if ask.mode == "cancel_running" and gate.startswith("slots|"):
        told.waiting = [member for member in line if member != ask.member]
        holding = sorted(model.slots[gate], key=model.slots[gate].__getitem__)
        of_task = [one for one in holding if _holds(model, one, ask.lane.split()[0])]
        oldest = [one for one in of_task if model.slots[gate][one] == model.slots[gate][of_task[0]]]
        told.running = [(member_of(one), model.runs[member_of(one)].worker) for one in oldest]
    return told


def _holds(model: Model, holder: str, task: str) -> bool:
    run = model.runs.get(member_of(holder))
    return run is not None and bool(run.worker) and run.lane.split()[0] == task


def release(model: Model, worker: str, holder: str, lane: str, is_over: bool) -> None:
    _drop_held(model, worker, holder)
    run = model.runs.get(member_of(holder))
    if run and (run.holder == holder or is_over):
        _end(model, member_of(holder), run, holder)
    model.give_back(holder, lane)
    model.wake(slots_of(lane))


def disown(model: Model, holder: str) -> bool:
    run = model.runs.get(member_of(holder))
    if run is None or run.holder != holder:
        return False
    model.set_back(member_of(holder), "lost")
    model.wake(split(run.lane))
    return True


def spare(model: Model, member: str, parcel: Parcel) -> bool:
    run = model.runs.get(member)
    if run is None or run.state != "held":
        return False
    run.message, run.queue = parcel.message.decode(), parcel.queue
    return True


def restore(model: Model, worker: str, holder: str, lane: str, units: tuple[int, ...], priority: int) -> None:
    member = member_of(holder)
    run = model.runs.get(member)
    for gate in slots_of(lane):
        model.slots.setdefault(gate, {}).setdefault(holder, model.now)
    model.held.setdefault(worker, {})[holder] = lane
    model.workers.setdefault(worker, model.now + model.lease // 2)
    if run is not None and run.lost_by not in (None, holder):
        return
    if run is None or run.state in ("lost", "returned"):
        model.runs[member] = Run("new", lane, units, priority, run.number if run else 0)
        model.runs[member].number = model.number()
        model.hold(member, holder, lane, worker)
    elif run.state in ("waiting", "granted"):
        message, granted = run.message, run.holder
        if run.state == "waiting":
            model.leave_line(member)
        else:
            _not_granted(model, member)
            model.give_back(granted, run.lane)
        model.hold(member, holder, lane, worker)
        run.message = message
        model.wake(split(lane))


def _end(model: Model, member: str, run: Run, holder: str) -> None:
    was_lost = run.holder != holder
    if was_lost and run.lost_by not in (None, holder):
        return
    if was_lost and run.state == "waiting":
        model.leave_line(member)
    elif was_lost and run.state == "granted":
        _not_granted(model, member)
        model.give_back(run.holder, run.lane)
    elif was_lost and run.state not in ("lost", "returned"):
        return
    model.ending.pop(member, None)
    model.runs[member] = Run("done")
    if was_lost:
        model.wake(split(run.lane))


def _not_granted(model: Model, member: str) -> None:
    model.grants.pop(member, None)
    if member in model.outgoing:
        model.outgoing.remove(member)


def withdraw(model: Model, task_id: str, why: str) -> tuple[str, str] | None:
    member = model.parked.get(task_id)
    if member is None:
        return None
    run = model.runs[member]
    model.leave_line(member)
    run.state, run.why = "ending", why
    model.ending[member] = model.now + RETOLD
    model.wake(split(run.lane))
    assert run.message is not None
    return member, run.message


def next_outgoing(model: Model) -> tuple[str, str] | None:
    while model.outgoing:
        member = model.outgoing.pop(0)
        if message := model.runs[member].message:
            return member, message
    return None


def sent(model: Model, member: str) -> None:
    run = model.runs.get(member)
    if run and run.state == "granted":
        run.message = None


def forget(model: Model, member: str) -> None:
    run = model.runs.get(member)
    if run is None or run.state in ("held", "done"):
        return
    _not_granted(model, member)
    if run.state == "waiting":
        model.leave_line(member)
    if run.state == "granted":
        model.give_back(run.holder, run.lane)
    model.ending.pop(member, None)
    model.runs[member] = Run("done")
    model.wake(split(run.lane))


def declare(model: Model, values: dict[str, str], lease: int, grant: int, nothing_runs: bool) -> None:
    if model.ready_at is None:
        model.ready_at, model.swept_at = model.now + lease, model.now
    model.ready_at = min(model.ready_at, model.now if nothing_runs else model.now + lease)
    model.lease, model.grant_time = lease, grant
    model.declared.update(values)


def pause(model: Model, target: str, time: int | None) -> bool:
    till = math.inf if time is None else model.now + time
    is_longer = till > model.paused.get(target, 0)
    if is_longer:
        model.paused[target] = till
    return is_longer


def resume(model: Model, target: str) -> bool:
    was_paused = model.paused.pop(target, None) is not None
    model.wake({target})
    return was_paused


def sweep(model: Model, lease: int) -> list[tuple[str, str, str | None]]:
    """See to everything; returns the runs to end."""
    _mind_the_clock(model, lease)
    for worker, deadline in sorted(model.workers.items(), key=lambda one: (one[1], one[0])):
        if deadline <= model.now and _is_dead(model, worker, deadline, lease):
            _bury(model, worker)
    lapsed = sorted((at, member) for member, at in model.grants.items() if at <= model.now)
    for _, member in lapsed:
        del model.grants[member]
        model.give_back(model.runs[member].holder, model.runs[member].lane)
        run = model.runs[member]
        if run.queue and run.message and model.is_queued(run.queue, run.message):
            run.message = None  # it arrives yet
        model.set_back(member, "returned")
    model.paused = {target: till for target, till in model.paused.items() if till > model.now}
    due = [
        member
        for at, member in sorted((at, member) for member, at in model.ending.items())
        if at <= model.now
    ]
    for member in due:
        run = model.runs[member]
        if run.state == "waiting":
            model.leave_line(member)
            run.state, run.why = "ending", "expired"
        model.ending[member] = model.now + RETOLD
    model.wake(None)
    return [(member, model.runs[member].why, model.runs[member].message) for member in due]


def _mind_the_clock(model: Model, lease: int) -> None:
    """What was timed by a clock that has been set back since is timed anew."""
    if model.now < model.swept_at:
        model.paused = {target: till - (model.swept_at - model.now) for target, till in model.paused.items()}
    if model.ready_at is not None and model.ready_at <= model.now:
        model.ready_at = 0
    model.swept_at = model.now
    if model.ready_at is not None:
        model.ready_at = min(model.ready_at, model.now + lease)
    for member, deadline in model.grants.items():
        model.grants[member] = min(deadline, model.now + model.grant_time)
    for worker, deadline in model.workers.items():
        if deadline >= model.now + lease:
            model.workers[worker] = model.now + lease // 2
    for worker in [w for w in model.suspects if model.workers.get(w, math.inf) > model.now]:
        del model.suspects[worker]


def _is_dead(model: Model, worker: str, deadline: int, lease: int) -> bool:
    if deadline == 0:
        return True
    since, seen = model.suspects.get(worker, (math.inf, 0))
    if since > model.now or seen != deadline:
        model.suspects[worker] = (model.now, deadline)
        return False
    return model.now - since >= lease / 2


def _bury(model: Model, worker: str) -> None:
    for holder, lane in model.held.pop(worker, {}).items():
        model.give_back(holder, lane)
        run = model.runs.get(member_of(holder))
        if run and run.holder == holder:
            model.set_back(member_of(holder), "lost")
    del model.workers[worker]
    model.suspects.pop(worker, None)


def _drop_held(model: Model, worker: str, holder: str) -> None:
    model.held.get(worker, {}).pop(holder, None)
    if not model.held.get(worker):
        model.held.pop(worker, None)


def member_of(holder: str) -> str:
    return holder.rpartition("#")[0]
