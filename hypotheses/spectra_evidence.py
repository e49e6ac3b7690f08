"""What SPECTRA is judged from: trained arms by training seed, each with the routing of the same documents and what metrics need beside it.

D evaluation document (place in trace.documents), T sampled token, L MoE layer, E expert, d width of the model, P probe document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.comparison import Conditions
from analysis.trace import RoutingTrace

BASELINE, TREATMENT = "switch_top2", "spectra"


@dataclass(frozen=True)
class SpectraSettings:
    """Knobs of the evaluation. salt: what orders documents into jackknife groups; n_null: draws behind each null.

    n_tokens_drawn: tokens of a picture of router inputs, at most 3,000; umap: draw them by UMAP, too; judged_only: leave out what no
    criterion rests on, as for controls.
    """

    seed: int = 0
    level: float = 0.95
    n_bootstrap: int = 999
    n_null: int = 99
    n_tokens_drawn: int = 1_500
    umap: bool = False
    judged_only: bool = False

    @property
    def salt(self) -> str:
        """What orders documents into groups."""
        return str(self.seed)


@dataclass(frozen=True)
class RouterInputs:
    """Router inputs of a sample of test tokens, chosen by the hash of document and position, and so the same in every arm and seed.

    document_T, position_T: int32 [T], keys into the trace; vectors: one [T, d] float16 a layer, on disk until read;
    first_LT: first choices [L, T], -1 for a token without one. Rows by document and position.
    """

    document_T: NDArray[np.int32]
    position_T: NDArray[np.int32]
    vectors: Sequence[NDArray[np.float16]]
    first_LT: NDArray[np.int32]


@dataclass(frozen=True)
class Representations:
    """Vectors of experts from which their distances follow.

    probe_PLEd: sum of E_i(x) over the tokens x of each probe document, all experts on the same tokens, float32; probe_tokens_P: tokens of
    each; probe_ids: the probe documents' ids, the same in every arm and seed. centroid_LEd, centroid_count_LE: sum and number of router
    inputs whose first choice is the expert, over test documents, float64 and int64. routing_LEr: the directions that the router compares
    tokens with, one [E, r] a layer (rows of a linear router; expert representations of SPECTRA), empty for a router without any.
    expert_norm_LE: Frobenius norm of an expert's weights.
    """

    probe_PLEd: NDArray[np.float32]
    probe_tokens_P: NDArray[np.int64]
    probe_ids: tuple[str, ...]
    centroid_LEd: NDArray[np.float64]
    centroid_count_LE: NDArray[np.int64]
    routing_LEr: tuple[NDArray[np.float32], ...]
    expert_norm_LE: NDArray[np.float64]


@dataclass(frozen=True)
class Training:
    """How an arm was trained with one seed. curves: column -> one value a noted step (`step`, `loss`, and each term of the loss by name).

    seconds: CPU seconds, None where a resumed training does not know them; checks: equation -> value per layer on the trained model,
    such as the largest misfit of Sinkhorn's row sums; agreement: of training-mode with evaluation-mode routing, name -> share per layer.
    held_out_nats: on calibration windows, the curve's end, None where undefined.
    """

    steps: int
    seconds: float | None
    curves: Mapping[str, NDArray[np.float64]]
    checks: Mapping[str, Sequence[float]]
    agreement: Mapping[str, Sequence[float]]
    held_out_nats: float | None = None


@dataclass(frozen=True)
class ArmRun:
    """One arm trained with one seed.

    loss_nats_D, tokens_D: summed next-token loss in nats, and tokens predicted, of each document of trace.documents, float64 and int64 [D].
    conditions: what must be equal for a comparison; data_order: digest of the batches in their order; optimised: ids of metrics that its
    loss optimises directly, which then show that the loss works and nothing more; constrained: those that its choice of experts in training
    bounds without a loss. fillers: slots that capacity dropped hold no choice of the router and are no selections, as where experts choose
    tokens; scored: experts are chosen by scores of the token, without which it has no confidence. facts: plain values for tables.
    """

    arm: str
    seed: int
    trace: RoutingTrace
    loss_nats_D: NDArray[np.float64]
    tokens_D: NDArray[np.int64]
    inputs: RouterInputs
    representations: Representations
    conditions: Conditions
    data_order: str
    training: Training
    causal: bool = True
    optimised: frozenset[str] = frozenset()
    constrained: frozenset[str] = frozenset()
    fillers: bool = False
    scored: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SpectraEvidence:
    """Arms by name, each a run per training seed in the order of seeds; baseline and treatment are the judged pair.

    domains: the declared ones, also those without a document. differences: arm -> what differs from the baseline beside the router, empty
    where nothing does. token_strings: the vocabulary by id; topics: topic of a document by id where it has one.
    """

    arms: Mapping[str, Sequence[ArmRun]]
    settings: SpectraSettings
    domains: tuple[str, ...]
    baseline: str = BASELINE
    treatment: str = TREATMENT
    differences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    token_strings: Sequence[str] = ()
    topics: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def pairs(self) -> tuple[tuple[ArmRun, ArmRun], ...]:
        """(baseline, treatment) of each training seed that both have, in the order of seeds."""
        of_seed = {run.seed: run for run in self.arms.get(self.treatment, ())}
        return tuple((run, of_seed[run.seed]) for run in self.arms.get(self.baseline, ()) if run.seed in of_seed)
