"""The tables of a declaration, one frozen model each; single fields are checked here, fields against each other in declaration.py."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]

ENTROPY_OF_N = re.compile(r"\s*(?P<value>[0-9.eE+-]+)\s*(?P<unit>nats|bits)\s+at\s+(?P<experts>\d+)\s+experts\s*")
ENTROPY_SHARE = re.compile(r"\s*(?P<value>[0-9.eE+-]+)\s*(?:of\s+ln\s*E|normalised)\s*")
ENTROPY_REMEDY = ('say which entropy: "0.5 nats at 8 experts" (seed 003; scaled by ln E / ln 8 elsewhere), "0.72 bits at 8 experts" '
                  'or "0.24 of ln E"')


def refused(message: str, remedy: str) -> PydanticCustomError:
    """A validation error that carries its remedy."""
    return PydanticCustomError("refused", "{message}", {"message": message, "remedy": remedy})


def entropy_share(text: object) -> float:
    """Share of ln E that an entropy threshold with its unit stands for, in (0, 1). Raises where the unit is missing."""
    if not isinstance(text, str) or re.fullmatch(r"\s*[0-9.]+(e[+-]?\d+)?\s*", text, re.IGNORECASE):
        raise refused(f"an entropy threshold of {text!r} has no unit: nats, bits and shares of ln E differ", ENTROPY_REMEDY)
    of_n, share = ENTROPY_OF_N.fullmatch(text), ENTROPY_SHARE.fullmatch(text)
    match = of_n or share
    try:
        value = float(match["value"]) if match else math.nan
    except ValueError:
        value = math.nan
    if of_n:
        experts = int(of_n["experts"])
        value = value * (math.log(2) if of_n["unit"] == "bits" else 1.0) / math.log(experts) if experts > 1 else math.nan
    if math.isnan(value):
        raise refused(f"cannot read the entropy threshold {text!r}", ENTROPY_REMEDY)
    if not 0 < value < 1:
        raise refused(f"{text!r} is {value:.3g} of the largest entropy: every or no token is below it", "choose between 0 and 1 of ln E")
    return value


class Frozen(BaseModel):
    """Base of every declared table: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DatasetSource(Frozen):
    """One `datasets` name of a corpus."""

    name: str
    config: str | None = None
    split: str = "train"
    text_field: str = "text"
    domain: str
    cap: Positive = 2_000
    revision: str | None = None


class CorpusSpec(Frozen):
    """Which documents are read, how they are cut, and how they are split by the hash of their id."""

    name: Literal["six_domains", "jsonl", "parquet", "text", "datasets"] = "six_domains"
    path: str | None = None
    domains: tuple[str, ...] = ("code", "math", "news", "wiki", "social", "medical")
    one_domain: bool = False  # a corpus of one domain is meant so
    documents_per_domain: Positive | None = None
    max_bytes_per_document: Positive = 4096
    max_bytes_per_domain: Positive = 2_000_000
    calibration_share: Share = 0.12
    test_share: Share = 0.28
    text_field: str = "text"
    domain_field: str = "domain"
    id_field: str = "id"
    sources: tuple[DatasetSource, ...] = ()
    salt: str = "assay"


class TestbedSpec(Frozen):
    """The small Mixtral that is trained when no model is given."""

    __test__ = False

    steps: Positive = 300
    batch: Positive = 16
    window: Positive = 128
    vocabulary: Annotated[int, Field(ge=258)] = 2048  # 256 bytes and two special tokens at least
    layers: Positive = 4
    hidden: Positive = 128
    heads: Positive = 4
    experts: Positive = 16
    top_k: Positive = 2
    intermediate: Annotated[int, Field(gt=0, multiple_of=4)] = 128  # rows of 16 bytes, which grouped_mm asks for
    lr: Annotated[float, Field(gt=0)] = 3e-3
    balance: Annotated[float, Field(ge=0)] = 0.01
    seed: Annotated[int, Field(ge=0)] = 0  # the experiment's seed, unless stated


class SourceSpec(Frozen):
    """The model whose routing is collected, and how."""

    kind: Literal["huggingface"] = "huggingface"
    model: str = "testbed:mixtral"
    revision: str | None = None
    dtype: str = "auto"
    quantize: Literal["8bit", "4bit"] | None = None
    device: str = "auto"
    batch_size: Positive = 16
    max_length: Positive = 512
    layers: Annotated[tuple[int, ...], Field(min_length=1)] | None = None  # blocks; None is every MoE layer, and what claims speak of
    documents_per_shard: Positive = 64

    @property
    def is_testbed(self) -> bool:
        """Whether the model is trained by this run."""
        return self.model.startswith("testbed:")


class TraceSpec(Frozen):
    """A trace that was recorded elsewhere, in place of corpus and model; what its files do not say by themselves is said here.

    paths: files or folders of one model; domains: a label for each (else the file's own, else its name); format: recognised by content
    unless named; model, n_experts, top_k, layers, mapping: see `assay import --help`. Documents are dealt to calibration and test by the
    hash of salt and id, unless the source has splits.
    """

    paths: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    format: str | None = None
    model: str | None = None
    n_experts: Positive | None = None
    top_k: Positive | None = None
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    moe_layers: Positive | None = None  # of the model; the trace may hold some of them
    leave_out_first: Annotated[int, Field(ge=0)] = 0  # rows of every document, such as those of a chat template
    mapping: str | None = None
    test_share: Annotated[float, Field(gt=0, le=1)] = 0.7  # 1 where nothing is tuned: every document is judged
    salt: str = "assay"

    @property
    def given(self) -> bool:
        """Whether the routing is read from files instead of collected."""
        return bool(self.paths)


class AuditSpec(Frozen):
    """What the audit of the trace may find without a verdict being withheld: codes of findings, each a decision that the run records."""

    accept: tuple[str, ...] = ()

    @field_validator("accept")
    @classmethod
    def _known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        from analysis.audit import CODES

        unknown = sorted(set(codes) - set(CODES))
        if unknown:
            raise refused(f"{', '.join(unknown)}: no finding of the audit has this code", f"one of {', '.join(sorted(CODES))}")
        return codes


class UncertaintySpec(Frozen):
    """What is resampled, how often, and the level of every interval."""

    unit: str = "document"
    n_bootstrap: Annotated[int, Field(ge=19)] = 999
    n_null: Annotated[int, Field(ge=19)] = 99
    level: Share = 0.95

    @field_validator("unit")
    @classmethod
    def _document(cls, unit: str) -> str:
        if unit != "document":
            why = ("tokens of one document share their routing: their bootstrap covers 25 % instead of 95 % (mean entropy, 100 documents)"
                   if unit in ("token", "tokens") else "only documents are drawn independently")
            raise refused(f"{unit!r} cannot be resampled: {why}", 'write unit = "document"')
        return unit


class AnalysisSpec(Frozen):
    """The thresholds inside the judged metrics; a hypothesis names the values it means, and others make the finding post hoc."""

    frequency_threshold: Positive = 50
    entropy_threshold: str = "0.5 nats at 8 experts"
    min_type_count: Positive = 50

    @field_validator("entropy_threshold", mode="before")
    @classmethod
    def _with_unit(cls, text: object) -> object:
        entropy_share(text)
        return text

    @property
    def entropy_share(self) -> float:
        """The threshold as a share of ln E, the same in every layer."""
        return entropy_share(self.entropy_threshold)

    def entropy_nats(self, n_experts: int) -> float:
        """The threshold in nats for a layer of `n_experts`: value x ln E / ln 8 for one declared at 8 experts."""
        return self.entropy_share * math.log(n_experts)


class CountKnob(Frozen):
    """Range of the frequency threshold, in occurrences on the calibration split."""

    low: Positive = 5
    high: Positive = 500
    log: bool = True


class EntropyKnob(Frozen):
    """Range of the entropy threshold; `unit` as in "nats at 8 experts" or "of ln E"."""

    low: Annotated[float, Field(gt=0)] = 0.1
    high: Annotated[float, Field(gt=0)] = 1.5
    unit: str = "nats at 8 experts"

    @property
    def low_share(self) -> float:
        """Lower end as a share of ln E."""
        return entropy_share(f"{self.low} {self.unit}")

    @property
    def high_share(self) -> float:
        """Upper end as a share of ln E."""
        return entropy_share(f"{self.high} {self.unit}")


class KnobsSpec(Frozen):
    """What the sweep may turn, on calibration documents only."""

    min_count: CountKnob = CountKnob()
    max_entropy: EntropyKnob = EntropyKnob()
    table_k: tuple[Positive, ...] = (1, 2)  # experts in an entry of the lookup table, ascending


class SweepSpec(Frozen):
    """The threshold study; the chosen point has the largest coverage among those with agreement of at least `min_agreement`."""

    knobs: KnobsSpec = KnobsSpec()
    n_trials: Annotated[int, Field(ge=32)] = 64
    min_agreement: Share = 0.9


class FastPathSpec(Frozen):
    """How the lookup table's real effect is measured."""

    n_documents: Positive = 120


class Range(Frozen):
    """Range of a knob, ends included."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.low < self.high:
            raise refused(f"low {self.low:g} is not below high {self.high:g}", "exchange them")
        return self


class WholeRange(Range):
    """Range of a whole-numbered knob, ends included."""

    low: Positive
    high: Positive


class TopologyKnobs(Frozen):
    """Ranges of the analysis knobs that are swept on calibration documents; nothing is judged by what the sweep prefers.

    window: numbers of tokens looked back; context_weight: tokens that the marginal counts for beside them.
    """

    n_clusters: WholeRange = WholeRange(low=2, high=24)
    smoothing: Range = Range(low=0.25, high=512)
    window: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
    context_weight: Range = Range(low=0.5, high=256)
    edge_cut: Range = Range(low=0.02, high=0.5)


class TopologySpec(Frozen):
    """How the topology of routing is measured; the claim names the values it means, and others make the finding post hoc.

    n_shifts, n_map_shifts: circular shifts behind the excess of adjacent layers and of all pairs; n_decomposition: shuffles of each strata;
    n_edge_shifts: shifts behind the false-discovery rate of edges; n_null_clusters: draws of sets without clusters; smoothing: b of the
    transfer tables; max_rows: rows that nulls run on; pairs: domain pairs shown by name (seed 000 has seven); predictor: whether Prophet is
    trained. predictions: files of a predictor made elsewhere, by the domain that it learnt from, in Prophet's place; one file where it learnt
    from all, which tells nothing of other domains. retention: a file of rows source, target, value in place of retention measured here.
    predictions_unseen: the author's word that no document of the trace was learnt from; without it no verdict rests on such predictions.
    """

    n_shifts: Annotated[int, Field(ge=19)] = 199
    n_map_shifts: Annotated[int, Field(ge=5)] = 25
    n_decomposition: Annotated[int, Field(ge=5)] = 25
    n_edge_shifts: Annotated[int, Field(ge=19)] = 999
    n_null_clusters: Annotated[int, Field(ge=19)] = 199
    lags: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 4, 8, 16)
    edge_cut: Annotated[float, Field(ge=0, lt=1)] = 0.1
    smoothing: Literal["chosen inside the source"] | Annotated[float, Field(gt=0)] = "chosen inside the source"
    n_clusters: Literal["chosen on calibration documents"] | Annotated[int, Field(ge=2)] = "chosen on calibration documents"
    max_rows: Positive = 2_000_000
    pairs: tuple[tuple[str, str], ...] = (("news", "wiki"), ("code", "math"), ("math", "medical"), ("medical", "wiki"), ("news", "social"),
                                          ("social", "wiki"), ("code", "news"))
    predictor: bool = True
    predictions: str | dict[str, str] | None = None
    predictions_unseen: bool = False
    retention: str | None = None
    knobs: TopologyKnobs = TopologyKnobs()


class AtlasSpec(Frozen):
    """How an atlas describes a trace. describe: write it (seeds 001 and 002), beside the claims that are judged.

    n_permutations: of document labels behind each test of association; max_rows: rows that sequences are read on.
    """

    describe: bool = False
    n_permutations: Annotated[int, Field(ge=19)] = 9_999
    lags: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 2, 4, 8, 16)
    max_rows: Positive = 2_000_000
