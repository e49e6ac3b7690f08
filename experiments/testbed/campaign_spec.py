"""What is declared of a comparison of routers: SPECTRA's knobs, which arms are trained with how many seeds, and what is kept of each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from experiments.specs import Frozen, Positive

AtLeastZero = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]


LEAST_TRIALS = 12  # complete ones, for a front that is worth reading


class SpectraSpec(Frozen):
    """Options of the SPECTRA router (experiments/testbed/routers/spectra.py says what each is), with those that the method leaves open.

    dimension: r of the routing space; at least the number of experts leaves room for orthogonal ones. eps: temperature of the transport and of
    the softmax in evaluation, the method's own "about 0.05" (testbed specification 3). It is a cold one, and a warmer one may well learn the
    language better at the testbed's size; it stays declared as it is, for a temperature picked by the outcome would be another method, and
    the sweep tries others on calibration documents.
    """

    dimension: Positive = 20
    eps: Annotated[float, Field(gt=0)] = 0.05
    iterations: Positive = 20
    repulsion: AtLeastZero = 1.0
    saturation: AtLeastZero = 1.0
    tau: Annotated[float, Field(ge=0, le=1)] = 0.7
    lambda_ortho: AtLeastZero = 0.01
    lambda_entropy: AtLeastZero = 0.01
    quota: bool = False
    capacity_factor: Annotated[float, Field(gt=0)] = 1.25
    sinkhorn_inference: bool = False

    def options(self) -> dict[str, Any]:
        """The router's options."""
        return self.model_dump(mode="json")


class ArmSweepSpec(Frozen):
    """A study over the weights of SPECTRA's losses, on calibration documents.

    n_trials: complete ones, fewer than 12 are a sketch; lambda_ortho, lambda_entropy, eps: ends of each knob on a logarithmic scale (eps None:
    as declared); steps: of a trial's training; rung_steps: of the short training after which a poor trial is stopped; confirm_seeds: fresh
    seeds of the chosen point.
    """

    n_trials: Positive = LEAST_TRIALS
    lambda_ortho: tuple[AboveZero, AboveZero] = (1e-4, 1.0)
    lambda_entropy: tuple[AboveZero, AboveZero] = (1e-4, 0.3)
    eps: tuple[AboveZero, AboveZero] | None = (0.01, 0.3)
    steps: Positive = 300
    rung_steps: Positive = 100
    confirm_seeds: Positive = 3
    margin_nats: AtLeastZero = 0.05


class CampaignSpec(Frozen):
    """Arms that are trained alike but for the router, and what is kept of each.

    arms: each with `seeds` training seeds, from the experiment's seed on; beside: shown, each with `seeds_beside`; processes: trainings at
    a time; sample_tokens: router inputs kept a layer; probe_documents, probe_tokens: test documents of each domain, and first tokens of
    each, that every expert is asked about; umap: draw router inputs by UMAP beside t-SNE, which needs the extra of that name; sweep: over
    the weights of SPECTRA's losses, None for none.
    """

    arms: Annotated[tuple[str, ...], Field(min_length=1)] = ("switch_top2", "spectra")
    beside: tuple[str, ...] = ("hash", "random")
    seeds: Positive = 5
    seeds_beside: Positive = 1
    processes: Positive = 2
    sample_tokens: Positive = 4_000
    probe_documents: Positive = 12
    probe_tokens: Positive = 64
    umap: bool = False
    sweep: ArmSweepSpec | None = None
