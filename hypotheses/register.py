"""The register of declarations: which criteria were fixed, when, and after how many looks at test documents.

Pure functions over its content; experiments/registration.py reads and writes the file.
A register maps a hypothesis' name to {"fingerprint", "registered" (UTC date), "history"}; history holds the superseded registrations,
oldest first, as {"fingerprint", "date", "runs"}, where runs counts the openings of a test split when the claim was changed.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Register = Mapping[str, Mapping[str, Any]]
Status = Literal["registered", "changed", "post_hoc", "unregistered"]

SHA256 = re.compile(r"[0-9a-f]{64}")


class RegisterError(ValueError):
    """A register that cannot be used; the message names entry, field and remedy."""


def status(name: str, fingerprint: str, register: Register) -> Status:
    """How a declaration stands: as first registered, registered again after a change, changed and not registered, or never registered."""
    entry = register.get(name)
    if entry is None:
        return "unregistered"
    if entry["fingerprint"] != fingerprint:
        return "post_hoc"
    return "changed" if entry["history"] else "registered"


def registration_note(name: str, fingerprint: str, register: Register, ledger_counts: Mapping[str, int]) -> str:
    """What a finding says of its registration. ledger_counts: openings of a test split, by hypothesis name."""
    entry, looks = register.get(name), _runs(ledger_counts.get(name, 0))
    match status(name, fingerprint, register):
        case "registered":
            return f"registered on {_entry(entry)['registered']}; {looks} looked at test documents before this one"
        case "changed":
            last = _entry(entry)["history"][-1]
            verb = "changed" if last["fingerprint"] else "first registered"  # first looked at, then registered
            return f"{verb} on {_entry(entry)['registered']} after {_runs(int(last['runs']))}"
        case "post_hoc":
            return f"changed since its registration on {_entry(entry)['registered']}, not registered again: post hoc, after {looks}"
        case _:
            return f"never registered: post hoc, after {looks}"


def registration(name: str, fingerprint: str, register: Register, ledger_counts: Mapping[str, int],
                 departures: Sequence[str] = ()) -> dict[str, Any]:
    """The `registration` of a finding: status, note, date, runs, history; departures are settings other than those the claim names."""
    stands = status(name, fingerprint, register)
    note = registration_note(name, fingerprint, register, ledger_counts)
    if departures:
        stands, note = "post_hoc", f"{note}; post hoc, since the run departs from the declared settings: {'; '.join(departures)}"
    entry = register.get(name, {})
    return {"status": stands, "note": note, "post_hoc": stands in ("post_hoc", "unregistered"), "fingerprint": fingerprint,
            "registered_fingerprint": entry.get("fingerprint"), "registered": entry.get("registered"),
            "runs": ledger_counts.get(name, 0), "history": [dict(one) for one in entry.get("history", ())], "departures": list(departures)}


def registered(register: Register, name: str, fingerprint: str, date: datetime.date, runs_counted: int) -> dict[str, Any]:
    """The register with `name` at `fingerprint`; a different earlier one goes into the history. The same one again changes nothing."""
    if runs_counted < 0:
        raise RegisterError(f"{name}: runs counted is {runs_counted}; it counts openings of a test split")
    entry = register.get(name)
    if entry is not None and entry["fingerprint"] == fingerprint:
        return dict(register)
    history = [dict(one) for one in entry["history"]] if entry else []
    if entry:
        history.append({"fingerprint": entry["fingerprint"], "date": entry["registered"], "runs": runs_counted})
    elif runs_counted:  # looked at before it was ever registered
        history.append({"fingerprint": None, "date": None, "runs": runs_counted})
    return {**register, name: {"fingerprint": fingerprint, "registered": date.isoformat(), "history": history}}


def problems(register: Register, fingerprints: Mapping[str, str]) -> list[str]:
    """Every disagreement between the register and the present declarations (name -> fingerprint)."""
    found = []
    for name, fingerprint in fingerprints.items():
        match status(name, fingerprint, register):
            case "unregistered":
                found.append(f"{name}: never registered; run assay register {name} before its first run")
            case "post_hoc":
                entry = register[name]
                found.append(f"{name}: changed since its registration on {entry['registered']} (fingerprint {fingerprint[:8]}, registered "
                             f"{entry['fingerprint'][:8]}); restore the declaration, or run assay register {name}, which keeps the history")
            case _:
                pass
    gone = [name for name in register if name not in fingerprints]
    found += [f"{name}: registered, but no such hypothesis; restore hypotheses/hNN_{name}.py" for name in gone]
    return found


def checked(content: Any, where: str) -> dict[str, dict[str, Any]]:
    """The content of a register file, its form checked. Raises RegisterError naming file, entry, field and remedy."""
    if not isinstance(content, dict):
        raise RegisterError(f"{where}: not a JSON object; restore it from version control")
    for name, entry in content.items():
        if not isinstance(entry, dict) or set(entry) != {"fingerprint", "registered", "history"}:
            raise RegisterError(f"{where}: {name}: needs fingerprint, registered and history; restore it from version control")
        if not isinstance(entry["fingerprint"], str) or not SHA256.fullmatch(entry["fingerprint"]):
            raise RegisterError(f"{where}: {name}: fingerprint is not a SHA-256; restore it from version control")
        try:
            datetime.date.fromisoformat(entry["registered"])
        except (TypeError, ValueError):
            raise RegisterError(f"{where}: {name}: registered is not a date; restore it from version control") from None
        whole = isinstance(entry["history"], list) and all(
            isinstance(one, dict) and set(one) == {"fingerprint", "date", "runs"} for one in entry["history"])
        if not whole:
            raise RegisterError(f"{where}: {name}: history needs fingerprint, date and runs in each entry; restore it from version control")
    return content


def _entry(entry: Mapping[str, Any] | None) -> Mapping[str, Any]:
    assert entry is not None
    return entry


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
