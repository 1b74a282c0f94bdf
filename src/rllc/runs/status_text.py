"""The status of a run in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rllc.runs.live import Pulse
from rllc.runs.progress import duration
from rllc.runs.status import DISK

_NAMED = 4  # cells of a group that are named


def render(found: Mapping[str, Any]) -> str:
    """What `status_of` found, for reading: who is at work, the stages, what failed, the disk."""
    lines = [f"{found['title']} ({found['folder']})", *running_lines(found["running"])]
    for name, stage in found["stages"].items():
        lines.append(f"  {name:<8} {_stage(name, stage)}" + (f" ({duration(stage['seconds'])})" if stage["seconds"] is not None else ""))
    for name, one in found["siblings"].items():
        trained = "done" if one["train"]["done"] else "not finished"
        lines.append(f"  beside it, {name}: training {trained}; {one['sample']['recorded']} cells recorded, {one['sample']['planned']} planned")
    lines += [line for group in found["refused"] for line in _refused(group)]
    lines += [f"    {problem}" for problem in found["damaged"]]
    live = {one.get("log") for one in found["running"]}
    lines += [line for session in _latest(found["sessions"]) for line in _session(session, session["log"] in live)]
    lines.append(f"  disk     {_disk(found['disk'])}")
    if found["page"]:
        lines.append(f"  page     {found['page']}")
    return "\n".join(lines)


def running_lines(running: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who is at work on it, or was when it was killed."""
    return [line for one in running for line in _running(one)]


def _running(one: Mapping[str, Any]) -> list[str]:
    who = f"rllc {one.get('command') or '?'}" + (f", shard {one['shard']}" if one.get("shard") else "")
    beat = f"{duration(one['heartbeat_age'])} ago"
    if one["state"] == Pulse.KILLED:
        last = f"It was at: {_work(one)}." if _work(one) else ""
        return [f"  killed   {who} did not end by itself; its last sign of life was {beat}. {last} The same command goes on where it was."]
    head = f"  {one['state']:<8} {who}, process {one['pid']}, for {_since(one.get('since'))}; "
    if one["state"] == Pulse.SILENT:
        head += f"no sign of life for {duration(one['heartbeat_age'])}: stopped, killed elsewhere, or its disk is full or out of reach"
    else:
        head += f"last sign of life {beat}"
    lines = [head, f"           {_work(one) or 'between two pieces of work'}"]
    if one.get("last"):
        lines.append(f"           last: {one['last']}, {_since(one.get('last_change'))} ago")
    return lines


def _work(one: Mapping[str, Any]) -> str:
    """Which stage it is in, how far that is, how fast it goes and how long it takes."""
    if not one.get("work"):
        return str(one.get("stage") or "")
    told = [f"{one['stage']}: {one['work']}" if one.get("stage") else str(one["work"])]
    if one.get("sibling"):
        told[0] += f", beside it {one['sibling']}"
    counts, unit = one.get("counts") or {}, str(one.get("unit") or "")
    share, rate, left = one.get("share"), one.get("rate"), one.get("seconds_left")
    if share is not None:
        told[0] += f", {100 * share:.0f} %"
    if "cells" in counts:
        refused = f" ({counts['refused']} refused)" if counts.get("refused") else ""
        told.append(f"{counts['cells']:,} of {counts.get('cells_total', 0):,} cells{refused} on {_workers(counts)}")
    elif unit and unit != "operations":
        told.append(f"{one.get('done') or 0:,.0f} of {one.get('total') or 0:,.0f} {unit}")
    if counts.get("chain_steps_per_second"):
        told.append(f"{counts['chain_steps_per_second']:,.0f} chain-steps a second")
    elif rate:
        told.append(f"{rate / 1e9:.3g} GFLOP/s" if unit == "operations" else f"{rate:.3g} {unit} a second")
    if left is not None:
        told.append(f"about {duration(left)} left")
    return ", ".join(told)


def _workers(counts: Mapping[str, Any]) -> str:
    number = counts.get("workers", 1)
    return f"{number} worker{'s' * (number != 1)}"


def _since(time: Any) -> str:
    try:
        return duration(max((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds(), 0.0))
    except (TypeError, ValueError):
        return "?"


def _stage(name: str, stage: Mapping[str, Any]) -> str:
    if name == "sample":
        counts = ", ".join(f"{count} {outcome}" for outcome, count in stage["outcomes"].items())
        others = f"; {stage['other_settings']} more of other settings" if stage["other_settings"] else ""
        return f"{stage['recorded']} cells recorded, {stage['planned']} planned" + (f": {counts}" if counts else "") + others
    if name == "measure" and stage["behind"]:
        behind = ", ".join(f"{measure} {done} of {of}" for measure, (done, of) in stage["behind"].items())
        how = f"very roughly, as {', '.join(stage['guessed'])} had no checkpoint yet" if stage["guessed"] else "at the pace until now"
        return f"not finished: {behind} checkpoints; {duration(stage['seconds_left'])} left {how}"
    if name == "measure" and not stage["as_asked"]:
        return "of other settings, perhaps: `rllc measure` computes what today's ask for"
    if name == "train" and not stage["done"] and stage["checkpoints"]:
        return f"not finished: {stage['checkpoints']} of {stage['planned']} checkpoints"
    return "done" if stage["done"] else "not finished"


def _refused(group: Mapping[str, Any]) -> list[str]:
    names = [f"step {cell['step']}, {cell['data']}, {cell['part']}" for cell in group["cells"][:_NAMED]]
    more = f"; and {group['count'] - _NAMED} more, named by `rllc status --json`" if group["count"] > _NAMED else ""
    such = "such as: " if group["count"] > 1 else ""
    return [f"  refused  {group['count']} {group['outcome']}, {such}{group['reason']}", f"           {'; '.join(names)}{more}"]


def _latest(sessions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without those of shards that were over when the last whole run began: it did what they had left."""
    whole = max((str(session["begun"]) for session in sessions if session["log"] == "log.jsonl"), default="")
    return [session for session in sessions if session["log"] == "log.jsonl" or str(session["ended"] or session["begun"]) > whole]


def _session(session: Mapping[str, Any], live: bool) -> list[str]:
    """What was wrong with the last session of a log; how it ends is told elsewhere where it has a live file."""
    who, lines = f"rllc {session['command'] or '?'}", list[str]()
    if session["outcome"] == Pulse.KILLED and not live:
        lines.append(f"  killed   {who} did not end by itself. The same command goes on where it was.")
    elif session["outcome"] not in ("done", *Pulse):
        when, code = str(session["ended"])[:16].replace("T", " "), session["exit_code"]
        lines.append(f"  ended    {who} {session['outcome']} at {when} UTC with exit code {code}: {session['reason']}")
    for one in session["retried"]:
        lines.append(f"  retried  {one['count']} unit{'s' * (one['count'] != 1)} whose worker was lost: {one['reason']}")
    lines += [f"  warned   {text}" for text in session["warnings"][-_NAMED:]]
    if lines:
        lines.append(f"           {session['log']} has more")
    return lines


def _disk(bytes_of: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {_size(bytes_of[name])}" for name in DISK if bytes_of[name])
    return f"{_size(bytes_of['total'])}: {parts}"


def _size(count: int) -> str:
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
