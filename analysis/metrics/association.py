"""Whether and how strongly expert and domain go together (seed 002, Parts 4 and 6; metrics specification 5.2).

D domain, E expert, N document, B draw, L layer, C column. Tokens of a document share its topic, so that the chi-square of tokens has size 1.0
at 5 %: it is printed as `naive` and never used. The tests are the permutation of document labels and Rao and Scott's first-order correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.arithmetic import Float, divide, mutual_information_bits
from analysis.domain_labels import DomainDocuments, domain_estimates
from analysis.estimate import Estimate
from analysis.gates import UNTESTABLE
from analysis.label_permutation import EXACT_LIMIT, N_DRAWS, LabelNull, arrangements, label_null, smallest_p, untestable
from analysis.registry import metric

EMPTY = "no_data: a domain has no selections"
SINGLE = "one domain, one active expert, or " + EMPTY
SPREAD_RATIO = 2.0  # documents of one domain that differ so much more than those of another make the permutation react to spread
SOURCES_PER_DOMAIN = 2


def cells(counts_DE: ArrayLike) -> float:
    """Largest chi-square of a table: N min(D - 1, E - 1)."""
    return float(np.sum(counts_DE) * (min(np.shape(counts_DE)[-2:]) - 1))


def _per_selection(counts_DE: ArrayLike) -> Float:
    """X^2 / N over used columns: sum_de n_de^2 / (n_d n_e) - 1; NaN where a domain is empty."""
    n = np.asarray(counts_DE, np.float64)
    row, column = n.sum(axis=-1, keepdims=True), n.sum(axis=-2, keepdims=True)
    share = divide(n, row)  # an empty domain is NaN here, and in the sum
    back = np.divide(n, column, out=np.zeros_like(n), where=column > 0)
    out: Float = np.maximum((share * back).sum(axis=(-1, -2)) - 1.0, 0.0)
    return out


def _free(counts_DE: ArrayLike) -> tuple[Float, Float]:
    """D - 1 and E_active - 1."""
    n = np.asarray(counts_DE)
    active = (n.sum(axis=-2) > 0).sum(axis=-1).astype(np.float64)
    return np.full(active.shape, n.shape[-2] - 1.0), active - 1.0


def degrees_of_freedom(counts_DE: ArrayLike) -> Float:
    """(D - 1)(E_active - 1): unused experts are dropped."""
    rows, columns = _free(counts_DE)
    out: Float = rows * np.maximum(columns, 0.0)
    return out


@metric("chi2_naive_seed", unit="chi-square", bounds=(0.0, cells), undefined=EMPTY, source="seed 002, Part 4; Pearson 1900", takes=("counts_DE",),
        estimator="none: never used", seed="Chi-square statistic", seed_form=True)
def chi2_naive(counts_DE: ArrayLike) -> Float:
    """The seed's chi-square: sum over cells of used experts of (n_de - n_d n_e / N)^2 / (n_d n_e / N); [...].

    What is wrong: its law holds for independent tokens, and it is not comparable across layers of different N or E_active (V is).
    """
    out: Float = _per_selection(counts_DE) * np.asarray(counts_DE, np.float64).sum(axis=(-1, -2))
    return out


@metric("g_naive_seed", unit="chi-square", bounds=(0.0, None), undefined=EMPTY, source="Wilks 1935", takes=("counts_DE",),
        estimator="none: never used", seed="Chi-square statistic", seed_form=True)
def g_naive(counts_DE: ArrayLike) -> Float:
    """Likelihood-ratio form of the naive chi-square: G = 2 N ln 2 I(E;D), token-pooled; [...]. Wrong for the same reason."""
    n = np.asarray(counts_DE, np.float64)
    whole = (n.sum(axis=-1) > 0).all(axis=-1)
    out: Float = np.where(whole, 2 * np.log(2) * n.sum(axis=(-1, -2)) * mutual_information_bits(n), np.nan)
    return out


@metric("p_naive_seed", unit="probability", bounds=(0.0, 1.0), undefined=SINGLE, source="seed 002, Part 4", takes=("counts_DE",),
        estimator="none: never used", seed="P-value", seed_form=True)
def p_naive(counts_DE: ArrayLike) -> Float:
    """The seed's p: upper tail of chi-square with (D - 1)(E_active - 1) degrees of freedom; [...].

    What is wrong: tokens are counted as if independent; with clustered documents and no domain effect it is below 0.05 nearly always.
    """
    from scipy.special import chdtrc

    df = degrees_of_freedom(counts_DE)
    statistic = chi2_naive(counts_DE)
    known = (df > 0) & np.isfinite(statistic)
    return np.where(known, chdtrc(np.where(known, df, 1.0), np.where(known, statistic, 0.0)), np.nan)


@metric("V_squared", unit="share", bounds=(0.0, 1.0), undefined=SINGLE, source="metrics specification 2.3", takes=("counts_DE",),
        estimator="stratified group jackknife")
def cramers_v_squared(counts_DE: ArrayLike) -> Float:
    """Cramer's V squared: X^2 / (N min(D - 1, E_active - 1)), [0, 1]; smooth at 0, hence what intervals are made of; [...]."""
    rows, columns = _free(counts_DE)
    return divide(_per_selection(counts_DE), np.maximum(np.minimum(rows, columns), 0.0))


@metric("V", unit="correlation", bounds=(0.0, 1.0), undefined=SINGLE, source="seed 002; Cramer 1946", takes=("counts_DE",),
        estimator="stratified group jackknife of V_squared", seed="Cramer's V")
def cramers_v(counts_DE: ArrayLike) -> Float:
    """Cramer's V: sqrt(X^2 / (N min(D - 1, E_active - 1))), [0, 1]; unused experts are dropped; [...]. Interval: see association_strength."""
    return np.sqrt(cramers_v_squared(counts_DE))


@metric("V_bergsma_squared", unit="share", bounds=(None, 1.0), undefined=SINGLE + ", or one selection", source="Bergsma 2013", takes=("counts_DE",),
        estimator="stratified group jackknife")
def bergsma_v_squared(counts_DE: ArrayLike) -> Float:
    """Bergsma's V squared before the cut at 0: (X^2/N - (D-1)(E_act-1)/(N-1)) / min(D~ - 1, E~ - 1), D~ = D - (D-1)^2/(N-1); [...]."""
    n = np.asarray(counts_DE, np.float64)
    rows, columns = _free(n)
    rest = np.maximum(n.sum(axis=(-1, -2)) - 1, 0.0)
    smaller = np.minimum(rows - divide(rows**2, rest), columns - divide(columns**2, rest))
    return divide(_per_selection(n) - divide(rows * columns, rest), np.where(smaller > 0, smaller, 0.0))


@metric("V_bergsma", unit="correlation", bounds=(0.0, 1.0), undefined=SINGLE + ", or one selection", source="Bergsma 2013", takes=("counts_DE",),
        estimator="stratified group jackknife of V_bergsma_squared", seed="Cramer's V")
def bergsma_v(counts_DE: ArrayLike) -> Float:
    """Bias-corrected Cramer's V: sqrt(max(0, V_bergsma_squared)), [0, 1]; for independent tokens, hence still too large for documents; [...]."""
    return np.sqrt(np.maximum(bergsma_v_squared(counts_DE), 0.0))


def association_strength(documents: DomainDocuments, layer: int = 0, *, bergsma: bool = False, level: float = 0.95) -> Estimate:
    """Estimate of V (or Bergsma's): jackknife of its square, value and ends mapped by sqrt(max(0, .)), for V itself is not smooth at 0."""
    from dataclasses import replace

    square = domain_estimates("V_bergsma_squared" if bergsma else "V_squared", documents, layer, level=level).item()
    assert isinstance(square, Estimate)
    value, low, high, plug_in = (None if x is None else float(np.sqrt(max(0.0, x))) for x in (square.value, square.low, square.high, square.plug_in))
    return replace(square, value=value, low=low, high=high, plug_in=plug_in, se=None, unit="correlation", method=f"{square.method} of the square")


@dataclass(frozen=True)
class RaoScott:
    """First-order corrected chi-square. delta: mean design effect; F on (df1, df2); spread_D: documents' spread within each domain."""

    chi2: float | None
    delta: float | None
    F: float | None
    df1: int
    df2: int
    p: float | None
    spread_D: tuple[float, ...] = ()
    reason: str | None = None

    @property
    def spread_ratio(self) -> float | None:
        """Largest over smallest spread between the documents of a domain; None where one domain has none."""
        return max(self.spread_D) / min(self.spread_D) if self.spread_D and min(self.spread_D) > 0 else None


def cluster_variance(documents: DomainDocuments, layer: int = 0) -> Float:
    """v_de = n_d/(n_d - 1) sum_i (c_ie - M_i p_de)^2 / N_d^2, [D, E]: variance of P(e|d) over documents; exactly 0 for alike profiles.

    NaN for a domain of fewer than two documents with selections.
    """
    kept = documents.at(layer)
    counts, out = kept.layers[0], np.full((kept.n_domains, kept.layers[0].shape[1]), np.nan)
    for d, size in enumerate(kept.per_domain):
        if size > 1:
            c = counts[kept.domain == d].astype(np.float64)
            total = c.sum()
            # times N_d, whose products are whole numbers: no rounding is taken for spread
            off = c * total - c.sum(axis=1, keepdims=True) * c.sum(axis=0)
            out[d] = size / (size - 1) * ((off / total**2) ** 2).sum(axis=0)
    return out


def rao_scott(documents: DomainDocuments, layer: int = 0) -> RaoScott:
    """Rao and Scott's first-order test: F = X^2 / (delta df) on (df, df (n_docs - D)).

    delta = [sum_d (1 - N_d/N) N_d sum_e v_de / p_e] / [(D-1)(E_active-1)] with v_de of cluster_variance; documents without a selection do
    not count. Undefined (reason) for a domain of fewer than two documents, one active expert, and where documents do not differ at all.
    """
    from scipy.special import fdtrc

    kept = documents.at(layer)
    n = kept.table().astype(np.float64)
    df1 = int(degrees_of_freedom(n))
    df2 = df1 * (len(kept.domain) - kept.n_domains)
    if min(kept.per_domain, default=0) < 2:
        return RaoScott(None, None, None, df1, df2, None, reason=untestable(kept))
    if df1 == 0:
        return RaoScott(0.0, None, None, df1, df2, None, reason=f"{UNTESTABLE}: {SINGLE}")
    size_D, used = n.sum(axis=1), n.sum(axis=0) > 0
    variance = (cluster_variance(kept)[:, used] / (n.sum(axis=0)[used] / n.sum())).sum(axis=1)
    delta = float(((1 - size_D / n.sum()) * size_D * variance).sum() / df1)
    spread = tuple(float(x) for x in np.sqrt(variance * kept.per_domain))
    chi2 = float(chi2_naive(n))
    if delta == 0:
        return RaoScott(chi2, delta, None, df1, df2, None, spread, f"{UNTESTABLE}: the documents of a domain do not differ at all")
    f = chi2 / (delta * df1)
    return RaoScott(chi2, delta, f, df1, df2, float(fdtrc(df1, df2, f)), spread)


@dataclass(frozen=True)
class AssociationTest:
    """Test of association of expert and domain at one layer.

    p_permutation: of the document labels, None with its reason; n_draws of n_arrangements (all, if exact). smallest_p: least p that these
    labels allow. naive_p: as if tokens were independent, never used. gate: why no verdict may rest on it; caveats: how to word it.
    """

    chi2: float | None
    df: int
    naive_p: float | None
    rao_scott: RaoScott
    p_permutation: float | None
    n_arrangements: int
    n_draws: int
    exact: bool
    smallest_p: float | None
    reason: str | None = None
    gate: str | None = None
    caveats: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """`tested` or `untestable`."""
        return UNTESTABLE if self.reason else "tested"

    @property
    def preferred(self) -> str:
        """Which p to read: Rao-Scott where documents spread more than twice as much in one domain as in another, else the permutation."""
        ratio = self.rao_scott.spread_ratio
        return "rao_scott" if self.rao_scott.p is not None and (ratio is None or ratio > SPREAD_RATIO) else "permutation"


def association_null(documents: DomainDocuments, rng: np.random.Generator, *, n_draws: int = N_DRAWS, exact_limit: int = EXACT_LIMIT,
                     keep: bool = False) -> LabelNull:
    """X^2 of every layer [L] under the same permutations of the document labels. NaN at a layer that misses a domain.

    keep: hold the null [B, L], for multiplicity.max_t after standardised().
    """
    widths = [counts.shape[1] for counts in documents.layers]
    member = np.repeat(np.arange(len(widths)), widths)[:, None] == np.arange(len(widths))
    total_C = np.concatenate([counts.sum(axis=0) for counts in documents.layers]).astype(np.float64)
    column_CL, total_L = divide(member, np.where(total_C > 0, total_C, np.inf)[:, None]), total_C @ member

    def statistic(tables_BDC: Float) -> Float:
        size = tables_BDC @ member.astype(np.float64)
        share = np.divide(tables_BDC**2 @ column_CL, size, out=np.zeros_like(size), where=size > 0).sum(axis=1)
        out: Float = np.where(total_L > 0, np.maximum((share - 1.0) * total_L, 0.0), np.nan)
        return out

    return label_null(documents, statistic, rng, n_draws=n_draws, exact_limit=exact_limit, keep=keep)


def standardised(null: LabelNull) -> tuple[Float, Float]:
    """Observed [M] and null [B, M] less their common mean, over their standard deviation: one scale for layers of different E. NaN where constant.

    The observed value is among those that mean and deviation are of, as in each permutation that could have been the observed one.
    """
    if null.null is None:
        raise ValueError("the null was not kept; ask for it with keep=True")
    together = np.vstack([null.observed, null.null])
    mean, sd = together.mean(axis=0), together.std(axis=0)
    return divide(null.observed - mean, sd), divide(null.null - mean, sd)


def association_tests(
    documents: DomainDocuments, rng: np.random.Generator, *, n_draws: int = N_DRAWS, alpha: float = 0.05
) -> tuple[AssociationTest, ...]:
    """Both tests of association at every layer, by the same label permutations inside the declared sources.

    Untestable, with the reason: a domain of one document, 1 / #arrangements > alpha, every source of one domain, one active expert, a domain
    missing at the layer. Where swapping domains of the same sizes leaves no p at alpha or below, the p stays and carries a gate.
    """
    kept = documents.take(documents.used)
    reason = untestable(kept, alpha)
    null = None if reason else association_null(kept, rng, n_draws=n_draws)
    return tuple(_at_layer(kept, layer, null, reason, alpha) for layer in range(len(kept.layers)))


def _at_layer(documents: DomainDocuments, layer: int, null: LabelNull | None, reason: str | None, alpha: float) -> AssociationTest:
    table = documents.table(layer)
    df, chi2, naive = int(degrees_of_freedom(table)), float(chi2_naive(table)), float(p_naive(table))
    corrected = rao_scott(documents, layer)
    if reason is None and np.isnan(chi2):
        reason = EMPTY
    elif reason is None and df == 0:
        reason = f"{UNTESTABLE}: one active expert"
    least = smallest_p(documents) if len(documents.domain) else None
    gate = None
    if reason is None and least is not None and least > alpha:
        gate = f"{UNTESTABLE}: the smallest p that these labels allow is {least:.3g}; collect more documents"
    p = None if reason or null is None else float(null.p[layer])
    return AssociationTest(None if np.isnan(chi2) else chi2, df, None if np.isnan(naive) else naive, corrected, p, arrangements(documents),
                           0 if p is None or null is None else null.n_draws, null is not None and null.exact, least, reason, gate,
                           _caveats(documents, corrected))


def _caveats(documents: DomainDocuments, corrected: RaoScott) -> tuple[str, ...]:
    out = []
    ratio = corrected.spread_ratio
    if corrected.spread_D and (ratio is None or ratio > SPREAD_RATIO):
        out.append("unequal_spread: documents differ more than twice as much within one domain as within another, to which the permutation reacts "
                   "too; read Rao-Scott")
    sources = [len(np.unique(documents.source[documents.domain == d])) for d in range(documents.n_domains)] if documents.source is not None else [1]
    if min(sources) < SOURCES_PER_DOMAIN:
        out.append("single_source: a domain is drawn from one source, or sources are not declared; word the claim as of corpora, not domains")
    return tuple(out)
