"""The seed's two text files: validation_report.txt with its five numbered sections, and analysis_summary.txt.

Every value that the seed prints is printed, and beside it ours with its interval, unit and sample size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.words import interval, number, p_value, percent
from experiments.report.content import ReportContent
from experiments.report.display import columns_of, pad, token
from experiments.report.var_tables import mean_rows
from experiments.report.verdict import WORDS, bound_words
from hypotheses.wording import sentence

RULE = "=" * 60
INDENT = "   "


def ours(content: ReportContent, metric: str, *, share: bool = False, digits: int = 3) -> str:
    """'value [low, high]', with n and null; 'not computed' if the evaluation has no such estimate."""
    value = content.evaluation.estimates.get(metric)
    if value is None:
        return "not computed"
    parts = [_interval(value, share, digits)]
    if value.value is not None:
        parts += [value.unit] if value.unit == "nats" else []
        parts += [f"n = {value.n:,} {value.n_of or ''}".rstrip()] if value.n is not None else []
        parts += [f"null {percent(value.null) if share else number(value.null, digits)}"] if value.null is not None else []
    return ", ".join(parts)


def _interval(value: Estimate, share: bool, digits: int) -> str:
    if not share or value.value is None:
        return interval(value, digits)
    ends = "" if value.low is None or value.high is None else f" [{percent(value.low)}, {percent(value.high)}]"
    return percent(value.value) + ends


def seed(content: ReportContent, name: str, kind: str = "number") -> str:
    """A number as the seed computes it, in the seed's digits; kind is number, share or count. 'undefined' if it could not be computed."""
    value = content.evaluation.facts.get("seed_rule", {}).get(name)
    if value is None:
        return "undefined"
    return percent(float(value)) if kind == "share" else f"{int(value):,}" if kind == "count" else number(float(value), 4)


def _section(title: str, lines: Sequence[tuple[str, str]]) -> list[str]:
    return [title, *(f"{INDENT}{name}: {value}" for name, value in lines)]


def _frequency(content: ReportContent) -> list[str]:
    return _section(
        "1. Analyzing frequency distribution...",
        [
            ("Zipf R\u00b2", f"{seed(content, 'zipf_r2')} (of the documents, not of routing)"),
            ("Top 1000 coverage", seed(content, "top_coverage", "share")),
            ("Ours, train and calibration documents: Zipf R\u00b2", ours(content, "zipf_r2", digits=4)),
            ("Ours, train and calibration documents: Zipf exponent", ours(content, "zipf_exponent")),
            ("Ours, train and calibration documents: top 1000 coverage", ours(content, "top_1000_coverage", share=True)),
        ],
    )


def _correlation(content: ReportContent) -> list[str]:
    facts = content.evaluation.facts.get("seed_rule", {})
    rho, p = facts.get("rho"), facts.get("p")
    known = rho is not None and p is not None
    shown = "undefined" if p is None else p_value(float(p)).removeprefix("p = ").removeprefix("p ")
    return _section(
        "2. Testing frequency-entropy correlation...",
        [
            ("Spearman \u03c1", seed(content, "rho")),
            ("P-value", f"{shown}, n = {seed(content, 'n_types', 'count')} token types"),
            ("Significant", f"{bool(p < 0.01) if known else 'undefined'} (p < 0.01)"),
            ("Negative correlation", str(bool(rho < 0)) if known else "undefined"),
            ("Ours, judged", ours(content, "freq_entropy_rho")),
            ("Ours, given position, dispersion, token length and script", ours(content, "freq_entropy_rho_partial")),
        ],
    )


def _entropy(content: ReportContent) -> list[str]:
    return _section(
        "3. Analyzing entropy distribution...",
        [
            ("Mean entropy", f"{seed(content, 'mean_entropy')} nats, over token types"),
            ("Std entropy", f"{seed(content, 'std_entropy')} nats, over token types"),
            ("Tokens with entropy < 0.5", f"{seed(content, 'share', 'share')} of token types (0.5 nats)"),
            ("Ours, mean over occurrences", ours(content, "entropy_mean_nats", digits=4)),
            ("Ours, judged: occurrences below 0.2404 ln E", ours(content, "entropy_share_below", share=True)),
            ("Ours, occurrences below 0.5 nats", ours(content, "entropy_share_below_half_nat", share=True)),
            ("Ours, occurrences below 0.5 bits", ours(content, "entropy_share_below_half_bit", share=True)),
            ("Ours, token types below 0.5 nats", ours(content, "entropy_type_share_below_half_nat", share=True)),
        ],
    )


def _consistency(content: ReportContent) -> list[str]:
    return _section(
        "4. Analyzing routing consistency...",
        [
            ("Mean consistency", f"{seed(content, 'mean_consistency')} (share of the modal expert; 1 for a type seen once)"),
            ("Top 1000 consistency", seed(content, "top_consistency")),
            ("Ours, collision (free of sampling bias)", ours(content, "collision", digits=4)),
            ("Ours, modal share among 50 occurrences", ours(content, "consistency_rarefied", digits=4)),
            ("Ours, modal share among 50 occurrences, top 1000", ours(content, "consistency_rarefied_top1000", digits=4)),
        ],
    )


def _fastpath(content: ReportContent) -> list[str]:
    return _section(
        "5. Identifying fast-path eligible tokens...",
        [
            ("Eligible tokens", f"{seed(content, 'eligible_types', 'count')} ({seed(content, 'eligible_share', 'share')} of token types)"),
            ("Token occurrence coverage", f"{seed(content, 'coverage', 'share')} (decided and counted on the same tokens)"),
            ("Ours, judged: eligible on calibration, counted on test", ours(content, "fastpath_coverage", share=True)),
            ("Ours, optimism: calibration minus test", ours(content, "fastpath_optimism", share=True)),
            ("Ours, agreement of the table with the router", ours(content, "fastpath_agreement", share=True)),
        ],
    )


def _summary(content: ReportContent) -> list[str]:
    finding, seed = content.finding, content.finding.seed_verdict
    mark = {True: "\u2713", False: "\u2717", None: "?"}
    lines = [
        RULE,
        "Validation Summary",
        RULE,
        f"{mark[seed.get('supported')]} {seed.get('words', 'the seed rule was not applied')} (the seed's binary rule)",
    ]
    lines += [f"  {mark[bool(line['passed'])]} {line['text']}" for line in seed.get("lines", ())]
    lines += [f"  - {seed['reason']}"] if seed.get("reason") else []
    lines += ["", f"Our verdict, from intervals over documents: {WORDS[finding.verdict].upper()}"]
    for judged in finding.criteria:
        share = judged.criterion.unit.startswith("share")
        lines.append(
            f"  - {judged.criterion.name}: {_interval(judged.estimate, share, 3)}, bound {bound_words(judged.criterion)}: {judged.outcome}"
        )
        lines += [f"    what would settle it: {judged.settle}"] if judged.settle else []
    return [*lines, f"  {sentence(finding)}"]


def validation_report(content: ReportContent) -> str:
    """validation_report.txt: the seed's layout; where its number differs from ours in kind, both are printed with what they are."""
    parts: Sequence[Sequence[str]] = (
        _heading(content),
        _frequency(content),
        _correlation(content),
        _entropy(content),
        _consistency(content),
        _fastpath(content),
        _summary(content),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _heading(content: ReportContent) -> list[str]:
    population = content.evaluation.facts.get("seed_rule", {}).get("population")
    lines = [RULE, "VAR Hypothesis Validation", RULE, "Unmarked lines: the seed's number, computed as the seed does, single values."]
    lines += [f"Population of the seed's numbers: {population}."] if population else []
    return [*lines, "Lines marked 'Ours': mean over MoE layers, held-out test documents, [95% interval]."]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Rows of text in columns that line up by terminal width."""
    widths = [max(columns_of(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(pad(text, width, right=r) for text, width, r in zip(row, widths, right, strict=True)).rstrip() for row in (head, *rows)
    ]


def _frequent_types(content: ReportContent, n: int = 15) -> list[str]:
    stats = content.evaluation.tables.get("routing_stats")
    if stats is None or not len(stats["token_id"]):
        return ["no token type was seen on test documents"]
    wanted = ("token_id", "layer", "frequency", "mean_entropy", "mean_confidence", "routing_consistency", "collision")
    table = mean_rows({name: stats[name] for name in wanted if name in stats}, "token_id")
    names = dict(zip(np.asarray(stats["token_id"]).tolist(), stats["token_str"], strict=True))
    top = np.lexsort((table["token_id"], -table["frequency"]))[:n]
    shown = [name for name in wanted[3:] if name in table]
    rows = [
        [
            str(int(table["token_id"][i])),
            token(str(names[int(table["token_id"][i])])),
            f"{table['frequency'][i]:,.0f}",
            *("undefined" if np.isnan(table[name][i]) else number(float(table[name][i])) for name in shown),
        ]
        for i in top
    ]
    return aligned(["token_id", "token_str", "frequency", *shown], rows, [True, False, True, *[True] * len(shown)])


def analysis_summary(content: ReportContent) -> str:
    """analysis_summary.txt: sizes, every estimate, and the most frequent token types, in plain aligned text."""
    meta, facts, estimates = content.trace.meta, content.evaluation.facts, content.evaluation.estimates
    sizes = [
        ["model", meta.model],
        ["revision", meta.revision],
        ["MoE layers", str(len(meta.layers))],
        ["tokens kept", f"{content.trace.n_rows:,}"],
        ["test documents", str(facts.get("n_documents", "not stated"))],
        ["judged token types", str(facts.get("n_types_judged", "not stated"))],
    ]
    rows = [
        [name, interval(value, 4), value.unit, f"{value.n_units:,} documents" if value.n_units else ""] for name, value in estimates.items()
    ]
    blocks = [
        [sentence(content.finding)],
        aligned(["item", "value"], sizes, [False, False]),
        aligned(["estimate (mean over layers)", "value [95% interval]", "unit", "resampled"], rows, [False] * 4),
        ["Most frequent token types on test documents, mean over layers (entropy in nats)", *_frequent_types(content)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"
