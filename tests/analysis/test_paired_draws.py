"""Differences of two checkpoints are made of the draws of each, and equal what one jackknife of both gives."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.comparison import checkpoint_estimates
from analysis.domain_labels import DomainDocuments, domain_groups
from analysis.metrics.specialization import mi_E_D
from analysis.paired_draws import Documents, bootstrapped, jackknifed, layers_and_mean


def documents(seed, n=60, domains=3, experts=4):
    rng = np.random.default_rng(seed)
    domain = np.repeat(np.arange(domains), n // domains)
    p = rng.dirichlet(np.ones(experts), domains)
    return domain, np.stack([rng.multinomial(30, p[d]) for d in domain])


def table(domain, counts):
    out = np.zeros((len(domain), 1, int(domain.max()) + 1, counts.shape[1]), np.int64)
    out[np.arange(len(domain)), :, domain] = counts[:, None]
    return out


def draws(seed, digest="d"):
    domain, counts = documents(seed)
    stratum = [f"{d}" for d in domain]
    return jackknifed("mi_E_D", [table(domain, counts)], lambda n: layers_and_mean(mi_E_D(n)), Documents(len(domain), digest, stratum))


def test_a_difference_of_draws_is_the_paired_jackknife():
    mine = (draws(1) - draws(2)).estimates()[0]
    groups = [domain_groups(DomainDocuments((documents(seed)[1],), documents(seed)[0], 3)) for seed in (1, 2)]
    theirs = checkpoint_estimates("mi_E_D", *groups).item()
    assert (mine.value, mine.low, mine.high) == pytest.approx((theirs.value, theirs.low, theirs.high), abs=1e-12)
    assert mine.method == "paired group jackknife"


def test_a_checkpoint_less_itself_is_exactly_nothing():
    mine = (draws(1) - draws(1)).estimates()[-1]
    assert (mine.value, mine.low, mine.high) == (0.0, 0.0, 0.0)


def test_other_documents_are_not_paired():
    with pytest.raises(ValueError, match="confounded"):
        draws(1) - draws(2, digest="others")


def test_the_mean_over_layers_stands_behind_them():
    np.testing.assert_array_equal(layers_and_mean([[1.0, 3.0], [np.nan, 1.0]]), [[1.0, 3.0, 2.0], [np.nan, 1.0, np.nan]])


def test_replicates_of_two_checkpoints_draw_the_same_documents():
    domain, counts = documents(3)
    one = Documents(len(domain), "d", [f"{d}" for d in domain], n_bootstrap=49)
    a = bootstrapped("mi_E_D", [table(domain, counts)], lambda n: layers_and_mean(mi_E_D(n)), one)
    assert np.array_equal(a.drawn, bootstrapped("mi_E_D", [table(domain, counts)], lambda n: layers_and_mean(mi_E_D(n)), one).drawn)
    assert a.estimates()[0].low < a.plug_in[0]


def test_one_document_has_no_interval():
    domain, counts = documents(3, n=3, domains=3)
    found = jackknifed("mi_E_D", [table(domain, counts)[:1]], lambda n: layers_and_mean(mi_E_D(n)), Documents(1, "d"))
    estimate = found.estimates()[0]
    assert estimate.low is None
