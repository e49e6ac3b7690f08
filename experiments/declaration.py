"""Experiments as data: TOML in, frozen models out, every error at once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of every declared table: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetSource(Frozen):
    """One `datasets` name of a corpus."""

    name: str
    config: str | None = None
    split: str = "train"
    text_field: str = "text"
    domain: str
    cap: int = 2_000
    revision: str | None = None


class CorpusSpec(Frozen):
    """Which documents are read, how they are cut, and how they are split by the hash of their id."""

    name: Literal["six_domains", "jsonl", "parquet", "text", "datasets"] = "six_domains"
    path: str | None = None
    domains: tuple[str, ...] = ("code", "math", "news", "wiki", "social", "medical")
    documents_per_domain: int | None = None
    max_bytes_per_document: int = 4096
    max_bytes_per_domain: int = 2_000_000
    calibration_share: float = 0.12
    test_share: float = 0.28
    text_field: str = "text"
    domain_field: str = "domain"
    id_field: str = "id"
    sources: tuple[DatasetSource, ...] = ()
    salt: str = "assay"


class TestbedSpec(Frozen):
    """The small Mixtral that is trained when no model is given."""

    __test__ = False

    steps: int = 300
    batch: int = 16
    window: int = 128
    vocabulary: int = 2048
    layers: int = 4
    hidden: int = 128
    heads: int = 4
    experts: int = 16
    top_k: int = 2
    intermediate: int = 128
    lr: float = 3e-3
    balance: float = 0.01
    seed: int = 0


class SourceSpec(Frozen):
    """The model whose routing is collected, and how."""

    kind: Literal["huggingface"] = "huggingface"
    model: str = "testbed:mixtral"
    revision: str | None = None
    dtype: str = "auto"
    quantize: Literal["8bit", "4bit"] | None = None
    device: str = "auto"
    batch_size: int = 16
    max_length: int = 512
    layers: tuple[int, ...] | None = None
    documents_per_shard: int = 64
