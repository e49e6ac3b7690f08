"""One trained arm with one seed, counted once: its documents in hash order, and every metric of it as draws that pair with another arm's.

D document, L MoE layer, E expert, H domain, F fold, P probe document, T sampled token, V token type, R shuffle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide
from analysis.counts import document_hash
from analysis.domain_labels import IN_SAMPLE, DomainDocuments, rank_in_domain
from analysis.gates import CONFOUNDED, NO_DATA, few_per_domain
from analysis.kernels import Int
from analysis.loads import Kind, Loads, document_loads
from analysis.metrics.geometry import (
    centroid_input,
    centroid_input_centred,
    gram_rms,
    random_direction_rms,
    repr_output,
    repr_output_centred,
    welch_bound,
)
from analysis.metrics.loss_change import held_out_loss
from analysis.metrics.specialization import (
    expert_affinity_avg,
    goodman_kruskal_lambda,
    mi_E_D,
    purity_cross_fitted,
    purity_seed,
    purity_token_weighted,
)
from analysis.metrics.usage import collapse, collapse_rate, entropy_bits, least_load
from analysis.paired_draws import Documents, Draws, bootstrapped, jackknifed, layers_and_mean
from analysis.registry import find
from hypotheses.spectra_evidence import ArmRun, SpectraSettings
from hypotheses.topology_parts import Row

SPLIT, ROUTING_GRAM = "test", "routing_gram_rms"
UNSCORED = f"{NO_DATA}: this router scores no expert, and the weights of its slots are fixed"
Function = Callable[..., Float]


class RunCounts:
    """A run's test documents and what is counted on them. ValueError for layers of unlike numbers of experts, which have no mean."""

    def __init__(self, run: ArmRun, settings: SpectraSettings) -> None:
        self.run, self.settings, self.layers = run, settings, run.trace.meta.layers
        if len({layer.n_experts for layer in self.layers}) != 1:
            raise ValueError(f"arm {run.arm}, seed {run.seed}: layers have {sorted({layer.n_experts for layer in self.layers})} experts; means over "
                             "layers need the same number in each, choose layers that have")

    @property
    def name(self) -> str:
        """Arm and seed."""
        return f"{self.run.arm}, seed {self.run.seed}"

    @property
    def n_experts(self) -> int:
        """Experts of each layer."""
        return self.layers[0].n_experts

    @cached_property
    def loads(self) -> Loads:
        """Selections per document of the test split; documents by domain, inside it in hash order."""
        return document_loads(self.run.trace, SPLIT, salt=self.settings.salt)

    @property
    def counted(self) -> Kind:
        """Selections that are choices of the router: all, but for slots that capacity left to fillers."""
        return "executed" if self.run.fillers and self.loads.executed is not None else "selected"

    def by_domain(self, layer: int) -> Int:
        """Selections [H, E] of a layer."""
        return self.loads.by_domain(layer, self.counted)

    def in_domains(self, layer: int) -> DomainDocuments:
        """Selections of each document at a layer, with its domain."""
        return DomainDocuments((self.loads.table(layer, self.counted),), self.loads.domain, len(self.domains))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains with test documents, by name."""
        return self.loads.domains

    @cached_property
    def documents(self) -> Documents:
        """The documents of `loads`, resampled inside domains."""
        names = [self.domains[d] for d in self.loads.domain.tolist()]
        return self._documents(len(names), names, *sorted(f"{row.id}\0{row.domain}" for row in self.run.trace.documents if row.split == SPLIT))

    def _documents(self, n: int, stratum: list[str] | None, *ids: str) -> Documents:
        digest = hashlib.sha256("\1".join(ids).encode("utf-8", "backslashreplace")).hexdigest()
        return Documents(n, digest, stratum, n_bootstrap=self.settings.n_bootstrap, seed=self.settings.seed)

    @cached_property
    def gate(self) -> str | None:
        """`too_few_documents` where a domain has too few for an interval."""
        return few_per_domain(self.loads.documents_H.tolist())

    def _stacked(self, kind: Kind) -> Int:
        """Counts [D, L, E] of a kind of selections."""
        return np.stack([self.loads.table(layer, kind) for layer in range(len(self.layers))], axis=1)

    @cached_property
    def executed_DLE(self) -> Int:
        """Selections that capacity left; all, where the source records no drops."""
        return self._stacked("executed" if self.loads.executed is not None else "selected")

    def by_cell(self, cell: Int, n_cells: int) -> Int:
        """Selections [D, L, cells, E], each document's in its own cell."""
        selected = self._stacked(self.counted)
        out = np.zeros((len(cell), len(self.layers), n_cells, self.n_experts), np.int64)
        out[np.arange(len(cell)), :, cell] = selected
        return out

    def domain_draws(self) -> dict[str, Draws]:
        """I(E;D) by the jackknife inside domains."""
        table = self.by_cell(self.loads.domain, len(self.domains))
        return {"mi_E_D": jackknifed("mi_E_D", [table], lambda n: layers_and_mean(mi_E_D(n)), self.documents, gate=self.gate)}

    def purity_draws(self) -> dict[str, Draws]:
        """Purity in three forms and cross-fitted affinity, by the basic document bootstrap; what is picked in-sample carries its gate."""
        n_domains, domain = len(self.domains), self.loads.domain
        table = self.by_cell(domain, n_domains)
        folds = self.by_cell(rank_in_domain(domain) % 2 * n_domains + domain, 2 * n_domains)
        folds = folds.reshape(len(domain), len(self.layers), 2, n_domains, self.n_experts)
        found: dict[str, Draws] = {}
        for name, function in (("purity_seed", purity_seed), ("purity_token_weighted", purity_token_weighted), ("lambda", goodman_kruskal_lambda)):
            found[name] = bootstrapped(name, [table], _means(function), self.documents, gate=IN_SAMPLE)
        for name, fitted in (("purity_cross_fitted", purity_cross_fitted), ("expert_affinity_avg", expert_affinity_avg)):
            found[name] = bootstrapped(name, [folds], _means(fitted), self.documents, gate=self.gate)
        return found

    def usage_draws(self) -> dict[str, Draws]:
        """Least load, collapse rate and entropy of the executed loads."""
        found = {"usage_entropy_bits": jackknifed("usage_entropy_bits", [self.executed_DLE], _means(entropy_bits), self.documents)}
        for name, function in (("least_load", least_load), ("collapse_rate", collapse_rate)):
            found[name] = bootstrapped(name, [self.executed_DLE], _means(function), self.documents)
        return found

    def collapse_rows(self) -> list[Row]:
        """Experts without a selection by layer, and the 95 % bound on the load of each that their absence shows, over an even load.

        A document counts as one selection, for its tokens are not independent: with more the bound would be lower.
        """
        rows: list[Row] = []
        n = int(self.loads.n_documents.sum())
        for layer, loads_E in enumerate(self.executed_DLE.sum(axis=0)):
            found = collapse(loads_E, min(n, int(loads_E.sum())))
            bound = None if found.load_bound is None else found.load_bound * self.n_experts
            rows.append({"arm": self.run.arm, "seed": self.run.seed, "layer": layer, "rate": found.rate, "n_dead": len(found.dead),
                         "dead": " ".join(map(str, found.dead)), "load_bound": bound})
        return rows

    def loss_draws(self) -> dict[str, Draws]:
        """Held-out loss over the test documents, by the jackknife over documents in hash order."""
        judged = ((place, row) for place, row in enumerate(self.run.trace.documents) if row.split == SPLIT)
        rows = [(document_hash(row.id, self.settings.salt), row.id, place) for place, row in judged]
        places = np.array([place for _, _, place in sorted(rows)], np.int64)
        places = places[self.run.tokens_D[places] > 0]
        documents = self._documents(len(places), None, *(row_id for _, row_id, _ in sorted(rows)))
        tables = [self.run.loss_nats_D[places], self.run.tokens_D[places]]
        return {"held_out_loss": jackknifed("held_out_loss", tables, lambda nats, tokens: held_out_loss(nats, tokens)[..., None], documents)}

    def output_draws(self) -> dict[str, Draws]:
        """Distances of expert outputs on the probe set, and their root mean square cosine, by the jackknife over probe documents."""
        vectors = self.run.representations
        order = sorted(range(len(vectors.probe_ids)), key=lambda place: document_hash(vectors.probe_ids[place], self.settings.salt))
        tables = [np.asarray(vectors.probe_PLEd, np.float64)[order]]
        documents = self._documents(len(order), None, *sorted(vectors.probe_ids))
        return {name: jackknifed(name, tables, _means(function), documents)
                for name, function in (("gram_rms", gram_rms), ("repr_output", repr_output), ("repr_output_centred", repr_output_centred))}

    def direction_draws(self) -> dict[str, Draws]:
        """Root mean square cosine of the directions that the router compares tokens with: of weights alone, so that no document is drawn.

        Its null is what random directions of as many dimensions give. Routers have spaces of their own, so that a change is gated. Nothing for
        a router without directions in some layer.
        """
        directions = self.run.representations.routing_LEr
        if len(directions) < len(self.layers) or not all(one.size for one in directions):
            return {}
        values = layers_and_mean([float(gram_rms(one)) for one in directions])
        random = layers_and_mean([random_direction_rms(one.shape[1]) for one in directions])
        gate = (f"{CONFOUNDED}: routers compare tokens in spaces of their own ({directions[0].shape[1]} dimensions in {self.run.arm}); read each "
                f"arm against random directions, {random[-1]:.2f} here")
        return {ROUTING_GRAM: Draws(find("gram_rms").unit, values, np.zeros((0, len(values))), "none", len(self.loads.domain),
                                    self.documents.digest, null=random, gate=gate)}

    def confidence_draws(self) -> dict[str, Draws]:
        """Confidence of the full softmax, mean over tokens, by the jackknife; nothing where the trace has no probabilities.

        Undefined for a router without scores, whose recorded probabilities are its slots' fixed weights.
        """
        if not self.run.scored:
            none = np.full(len(self.layers) + 1, np.nan)
            return {"confidence": Draws(find("confidence").unit, none, np.zeros((0, len(none))), "none", len(self.loads.domain),
                                        self.documents.digest, undefined=UNSCORED)}
        sums, tokens, ids = self._simpson()
        if sums is None:
            return {}
        documents, n_experts = self._documents(len(tokens), None, *ids), self.n_experts

        def value(total_L: ArrayLike, n: ArrayLike) -> Float:
            return layers_and_mean((divide(total_L, np.asarray(n)[..., None]) - 1 / n_experts) / (1 - 1 / n_experts))

        return {"confidence": jackknifed("confidence", [sums, tokens], value, documents)}

    def reference_rows(self) -> list[Row]:
        """Numbers without an interval, by layer: what random directions give, and distances of input centroids (the seed's code)."""
        vectors = self.run.representations
        rows: list[Row] = []
        for layer in range(len(self.layers)):
            width = vectors.probe_PLEd.shape[-1]
            found = {"gram_rms random directions": random_direction_rms(width), "gram_rms Welch bound": welch_bound(self.n_experts, width),
                     "centroid_input": float(centroid_input(vectors.centroid_LEd[layer])),
                     "centroid_input_centred": float(centroid_input_centred(vectors.centroid_LEd[layer], vectors.centroid_count_LE[layer]))}
            rows += [{"arm": self.run.arm, "seed": self.run.seed, "layer": layer, "reference": name, "value": value} for name, value in found.items()]
        return rows

    def _simpson(self) -> tuple[Float | None, Int, list[str]]:
        """Sums of sum p^2 over tokens [D, L], tokens [D] and ids of the test documents in hash order."""
        rows = sorted((document_hash(row.id, self.settings.salt), row.id, row.document) for row in self.run.trace.documents if row.split == SPLIT)
        place = {document: number for number, (_, _, document) in enumerate(rows)}
        lookup = np.full(max(place, default=-1) + 1, -1, np.int64)
        lookup[list(place)] = list(place.values())
        sums, tokens = np.zeros((len(rows), len(self.layers))), np.zeros(len(rows), np.int64)
        for batch in self.run.trace.batches(split=SPLIT):
            if batch.simpson is None:
                return None, tokens, []
            unit = lookup[batch.document]
            tokens += np.bincount(unit, minlength=len(rows))
            for layer, column in enumerate(batch.simpson):
                sums[:, layer] += np.bincount(unit, weights=column, minlength=len(rows))
        return sums, tokens, [row_id for _, row_id, _ in rows]


def _means(function: Function) -> Callable[[ArrayLike], Float]:
    return lambda table: layers_and_mean(function(table))


