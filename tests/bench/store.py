"""The trace store against numpy archives and tidy Parquet: arrays to disk and back, and the expert ids alone.

T token (row), L MoE layer, K slot in the top-k.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.rows import join
from analysis.trace import TraceBatch
from tests.bench.measure import Rival, Workload
from tests.bench.rows import Sample, n_bytes, same_rows
from tracking.layer_cache import layer_major
from tracking.traces import StoredTrace, TraceWriter

PLAIN, REALS = ("document", "position", "token_id"), ("entropy_nats", "simpson", "top1_prob")


class Store:
    """Each write goes to a new directory below `root`; reads read the one that was written for them."""

    def __init__(self, root: Path, sample: Sample) -> None:
        self.root, self.sample, self.numbers = root, sample, itertools.count()

    def _new(self) -> Path:
        return self.root / f"{next(self.numbers)}"

    def _kept(self, kind: str) -> Path:
        path: Path = getattr(self, f"write_{kind}")(keep=True)
        return path

    def write_ours(self, keep: bool = False) -> Path:
        """Shards checked, synced and listed, then all read back for the digest."""
        directory = self._new()
        writer = TraceWriter.create_or_resume(directory, self.sample.meta, self.sample.documents)
        for number, batch in enumerate(self.sample.shards):
            writer.write_shard(number, batch, np.unique(batch.document).tolist())
        writer.finish()
        return self._done(directory, keep)

    def write_npz(self, keep: bool = False) -> Path:
        directory = self._new()
        directory.mkdir(parents=True)
        for number, batch in enumerate(self.sample.shards):
            columns: dict[str, Any] = {name: getattr(batch, name) for name in (*PLAIN, *REALS)}
            columns |= {"ids": np.stack(batch.ids), "weights": np.stack(batch.weights or ())}
            np.savez_compressed(directory / f"{number:05d}.npz", **columns)
        return self._done(directory, keep)

    def write_tidy(self, keep: bool = False) -> Path:
        """A row per token and layer."""
        import pandas as pd

        directory = self._new()
        directory.mkdir(parents=True)
        for number, batch in enumerate(self.sample.shards):
            n_layers = len(batch.ids)
            columns: dict[str, Any] = {name: np.tile(getattr(batch, name), n_layers) for name in PLAIN}
            columns["layer"] = np.repeat(np.arange(n_layers, dtype=np.uint8), len(batch))
            columns |= {name: getattr(batch, name).ravel() for name in REALS}
            for slot in range(batch.ids[0].shape[1]):
                columns[f"expert_{slot}"] = np.concatenate([ids[:, slot] for ids in batch.ids])
                columns[f"weight_{slot}"] = np.concatenate([weights[:, slot] for weights in batch.weights or ()])
            pd.DataFrame(columns).to_parquet(directory / f"{number:05d}.parquet", index=False)
        return self._done(directory, keep)

    def _done(self, directory: Path, keep: bool) -> Path:
        if not keep:
            shutil.rmtree(directory)
        return directory

    @staticmethod
    def read_ours(directory: Path) -> list[TraceBatch]:
        return list(StoredTrace.open(directory).batches())

    @staticmethod
    def read_npz(directory: Path) -> list[TraceBatch]:
        batches = []
        for path in sorted(directory.glob("*.npz")):
            with np.load(path, allow_pickle=False) as file:
                batches.append(TraceBatch(*(file[name] for name in PLAIN), tuple(file["ids"]), tuple(file["weights"]),
                                          *(file[name] for name in REALS)))
        return batches

    def read_tidy(self, directory: Path) -> list[TraceBatch]:
        import pandas as pd

        batches = []
        n_layers, k = len(self.sample.meta.layers), self.sample.meta.layers[0].top_k
        for path in sorted(directory.glob("*.parquet")):
            frame = pd.read_parquet(path)
            n = len(frame) // n_layers
            ids, weights = (np.stack([frame[f"{name}_{slot}"].to_numpy().reshape(n_layers, n) for slot in range(k)], axis=2)
                            for name in ("expert", "weight"))
            batches.append(TraceBatch(*(frame[name].to_numpy()[:n] for name in PLAIN), tuple(ids), tuple(weights),
                                      *(frame[name].to_numpy().reshape(n_layers, n) for name in REALS)))
        return batches

    @staticmethod
    def ids_ours(directory: Path) -> NDArray[Any]:
        parts = [np.stack(batch.ids) for batch in StoredTrace.open(directory).batches(columns=("ids",))]
        return np.concatenate(parts, axis=1)

    @staticmethod
    def ids_cached(directory: Path) -> NDArray[Any]:
        return np.stack(layer_major(StoredTrace.open(directory)).ids)

    @staticmethod
    def ids_npz(directory: Path) -> NDArray[Any]:
        parts = []
        for path in sorted(directory.glob("*.npz")):
            with np.load(path, allow_pickle=False) as file:
                parts.append(file["ids"])
        return np.concatenate(parts, axis=1)

    def ids_tidy(self, directory: Path) -> NDArray[Any]:
        import pandas as pd

        parts = []
        n_layers, k = len(self.sample.meta.layers), self.sample.meta.layers[0].top_k
        for path in sorted(directory.glob("*.parquet")):
            frame = pd.read_parquet(path, columns=[f"expert_{slot}" for slot in range(k)])
            parts.append(frame.to_numpy().reshape(n_layers, -1, k))
        return np.concatenate(parts, axis=1)


def workloads(root: Path, sample: Sample) -> list[Workload]:
    """Writing, reading, and the ids."""
    store = Store(root, sample)
    here = {kind: store._kept(kind) for kind in ("ours", "npz", "tidy")}
    raw = sum(n_bytes(batch) for batch in sample.shards) / 1e6
    disk = {kind: sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / 1e6 for kind, path in here.items()}
    rows, ids = sample.rows, np.stack(sample.rows.ids)
    size = f"{raw:.1f} MB of arrays, on disk {disk['ours']:.1f} MB"

    def joined(batches: list[TraceBatch]) -> TraceBatch:
        whole = batches[0]
        for batch in batches[1:]:
            whole = join(whole, batch)
        return whole

    def check() -> str:
        assert same_rows(rows, joined(store.read_ours(here["ours"])))
        assert same_rows(rows, joined(store.read_npz(here["npz"])))
        assert same_rows(rows, joined(store.read_tidy(here["tidy"])))
        for found in (store.ids_ours(here["ours"]), store.ids_cached(here["ours"]), store.ids_npz(here["npz"]), store.ids_tidy(here["tidy"])):
            assert np.array_equal(ids, found)
        return "what is read back is bit for bit what was written"

    npz, tidy = f"on disk {disk['npz']:.1f} MB", f"on disk {disk['tidy']:.1f} MB"
    return [
        Workload("trace store, write", store.write_ours, [Rival("np.savez_compressed", store.write_npz, note=f"{npz}, no sync, no checks"),
                 Rival("pandas tidy Parquet", store.write_tidy, note=f"{tidy}, no sync, no checks")], check, raw, "MB/s",
                 f"{size}; ours checks, syncs each shard, and reads all back for the digest"),
        Workload("trace store, read", lambda: store.read_ours(here["ours"]), [
            Rival("np.load", lambda: store.read_npz(here["npz"]), note=npz),
            Rival("pandas read_parquet", lambda: store.read_tidy(here["tidy"]), note=tidy)], check, raw, "MB/s",
            f"{size}; ours verifies SHA-256 and page checksums"),
        Workload("ids to arrays", lambda: store.ids_ours(here["ours"]), [
            Rival("our layer cache", lambda: store.ids_cached(here["ours"]), note="made before, verified, copied"),
            Rival("np.load", lambda: store.ids_npz(here["npz"])),
            Rival("pandas read_parquet", lambda: store.ids_tidy(here["tidy"]))], check, ids.nbytes / 1e6, "MB/s of ids",
            f"{ids.nbytes / 1e6:.1f} MB of ids out of the whole trace"),
    ]
