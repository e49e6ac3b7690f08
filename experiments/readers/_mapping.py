"""What the columns of a plain table mean, written down in TOML.

    form = "token"                  # one row a token; or "layer": one row a token and layer; or "slot": one row a choice
    model = "org/name"              # optional, as are n_experts, top_k, layers, domain, vocabulary_size, weights_mean
    n_experts = 64
    [columns]
    document = "doc"                # ids of documents, text or numbers; in npz also lengths = "doc_len" instead
    ids = "experts_{layer}"         # form token: a list column per layer, or "expert_{layer}_{slot}"; npz: one array and axes
    weights = "weights_{layer}"     # optional, as are domain, position and token_id
    # without weights, slot_order = "falling score" vouches for the order of a token's choices
    # form layer: layer = "layer", ids = "experts", weights = "probs"; form slot: layer, slot (optional), expert, weight (optional)
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.readers.contract import ReadError

FORMS = {"token": {"document", "lengths", "domain", "position", "token_id", "ids", "weights"},
         "layer": {"document", "domain", "position", "token_id", "layer", "ids", "weights"},
         "slot": {"document", "domain", "position", "token_id", "layer", "slot", "expert", "weight"}}
NEEDED = {"token": ("ids",), "layer": ("document", "position", "layer", "ids"), "slot": ("document", "position", "layer", "expert")}
AXES = ("token", "layer", "slot")
TYPES: Mapping[str, Any] = {"form": str, "model": str, "n_experts": int, "top_k": int, "layers": list, "domain": str, "vocabulary_size": int,
                            "weights_mean": str, "slot_order": str, "axes": list, "columns": dict}
SIZE_LIMIT = 1 << 20


@dataclass(frozen=True)
class TableMapping:
    """form: what a row is; columns: role -> name in the file; axes: of an npz array of ids, outermost first."""

    path: Path
    form: str
    columns: Mapping[str, str]
    model: str | None = None
    n_experts: int | None = None
    top_k: int | None = None
    layers: tuple[int, ...] | None = None
    domain: str | None = None
    vocabulary_size: int | None = None
    weights_mean: str | None = None
    slot_order: str | None = None
    axes: tuple[str, ...] = field(default=AXES)

    def pattern(self, role: str) -> re.Pattern[str]:
        """Names of the columns of a role, with groups `layer` and `slot` where the name has them."""
        text = re.escape(self.columns[role]).replace(r"\{layer\}", r"(?P<layer>\d{1,6})", 1).replace(r"\{slot\}", r"(?P<slot>\d{1,6})", 1)
        return re.compile(text)


def load(path: Path) -> TableMapping:
    """Read and check a mapping; every fault is named at once. Raises ReadError."""
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise ReadError(f"{path}: {path.stat().st_size:,} bytes; a mapping is a page of TOML")
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror or error}; give the mapping's file with --mapping") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReadError(f"{path}: no TOML ({error})") from error
    faults = list(_faults(fields))
    if faults:
        raise ReadError("\n".join(f"{path}: {fault}" for fault in faults))
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return TableMapping(path, **values)


def _faults(fields: Mapping[str, Any]) -> Sequence[str]:
    found = [f"{name}: not known; one of {', '.join(TYPES)}" for name in fields if name not in TYPES]
    found += [f"{name}: {value!r}, expected {TYPES[name].__name__}" for name, value in fields.items()
              if name in TYPES and (not isinstance(value, TYPES[name]) or isinstance(value, bool))]
    form, columns = fields.get("form"), fields.get("columns")
    if form not in FORMS:
        return [*found, f"form: {form!r}, expected one of {', '.join(FORMS)}: what a row of the table is"]
    if not isinstance(columns, dict):
        return [*found, "columns: absent; name the columns of the table there"]
    found += [f"columns.{role}: {name!r}, expected the name of a column" for role, name in columns.items() if not isinstance(name, str)]
    found += [f"columns.{role}: not known with form {form!r}; one of {', '.join(sorted(FORMS[form]))}" for role in columns if role not in FORMS[form]]
    found += [f"columns.{role}: absent; form {form!r} needs it" for role in NEEDED[form] if role not in columns]
    if form == "token" and not {"document", "lengths"} & set(columns):
        found.append("columns.document: absent; say which document a row is of (or, in npz, columns.lengths)")
    if "axes" in fields and sorted(map(str, fields["axes"])) != sorted(AXES):
        found.append(f"axes: {fields['axes']!r}, expected {', '.join(AXES)} in the order of the array")
    found += [f"{name}: {fields[name]}, expected 1 or more" for name in ("n_experts", "top_k", "vocabulary_size")
              if isinstance(fields.get(name), int) and fields[name] < 1]
    layers = fields.get("layers")
    if isinstance(layers, list) and any(type(one) is not int or not 0 <= one < 2**31 for one in layers):
        found.append(f"layers: {str(layers)[:80]}, expected block indices")
    return found
