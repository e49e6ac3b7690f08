"""The panels of the VAR hypothesis (seed 003), in the order of the report, and its plain-text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.estimate import Estimate
from analysis.figures.columns import floats
from analysis.figures.forest import ForestMark, ForestPanel, forest
from experiments.report.blocks import Block, Cell, Column, Paragraph, Picture, Section, Table
from experiments.report.content import ReportContent
from experiments.report.var_extension import chosen_point, fastpath_section, sweep_section
from experiments.report.var_figures import (
    consistency_picture,
    coverage_picture,
    entropy_picture,
    key_picture,
    layers_picture,
    min_type_count,
    sensitivity_picture,
)
from experiments.report.var_tables import mean_rows
from experiments.report.var_validation import analysis_summary, validation_report
from experiments.report.verdict import WORDS, bound_words, is_share
from hypotheses.claim import CriterionFinding

SEED_PRINTED = {"freq_entropy_rho": -0.6789, "entropy_share_below": 0.423, "fastpath_coverage": 0.567}  # seed 003, "Expected Output"
SEED_FACTS = {"freq_entropy_rho": "rho", "entropy_share_below": "share", "fastpath_coverage": "coverage"}  # names in facts["seed_rule"]
BANDS = (0, 1, 4, 16, 64)


def bare(value: float, unit: str = "") -> Estimate:
    """A number without an interval, so that it can stand beside estimates."""
    return Estimate(value, None, None, unit, "nothing", 0, "as printed")


def _forest_panel(judged: CriterionFinding, marks: Sequence[ForestMark]) -> ForestPanel:
    criterion = judged.criterion
    passes = "below" if criterion.below is not None or criterion.at_most is not None else "above"
    return ForestPanel(
        f"{criterion.name}: {bound_words(criterion)}   ({WORDS[judged.outcome].lower()})",
        criterion.unit,
        marks,
        criterion.bound,
        "below" if passes == "below" else "above",
        is_share(criterion.unit),
    )


def overview(content: ReportContent) -> Section:
    """Each criterion's interval against its bound, with the null, the seed's rule on these data, and the seed's printed number."""
    seed = content.evaluation.facts.get("seed_rule", {})
    panels = []
    for judged in content.finding.criteria:
        metric, value = judged.criterion.metric, judged.estimate
        marks = [ForestMark("this run, 95% interval", value)]
        if value.null is not None:
            marks.append(
                ForestMark(
                    "matched null, 95%", Estimate(value.null, value.null_low, value.null_high, value.unit, "null", 0, "null"), "null"
                )
            )
        by_rule = seed.get(SEED_FACTS.get(metric, ""))
        if by_rule is not None:
            marks.append(ForestMark("these data by the seed's rule", bare(by_rule), "seed"))
        if metric in SEED_PRINTED:
            marks.append(ForestMark("printed in the seed's guide", bare(SEED_PRINTED[metric]), "seed"))
        panels.append(_forest_panel(judged, marks))
    picture = Picture(
        "criteria_overview",
        forest(panels),
        "Each criterion against its bound (red). The claim holds on the green side: a criterion is supported when the whole blue "
        "interval lies in the green. Open diamonds are point values without an interval.",
        "One panel per criterion: interval, bound, null and the seed's values.",
    )
    return Section("criteria-overview", "Criteria at a glance", [picture], "overview")


def controls_panel(content: ReportContent) -> Section | None:
    """What each control was expected to give and gave, by criterion; None without controls that were judged."""
    controls = content.finding.controls
    rows: list[list[Cell]] = [
        [
            name,
            str(one.get("expected", "")),
            str(one.get("outcome") or "not judged"),
            str(one.get("status", "")),
            str(one.get("reason", "")),
        ]
        for name, one in controls.items()
        if isinstance(one, Mapping)
    ]
    if not rows:
        return None
    table = Table(
        "controls",
        "Controls: expected and found",
        [Column(t) for t in ("control", "expected", "found", "status", "limiting criterion")],
        rows,
        "The positive control has a relation planted five standard errors beyond the bound, and shares above theirs; the negative has no "
        "relation and shares below. Each criterion by itself must support the one and refute the other.",
    )
    return Section("controls-panel", "Controls", [table, *_controls_picture(content, controls)], "controls")


def _controls_picture(content: ReportContent, controls: Mapping[str, Any]) -> list[Block]:
    panels = []
    for judged in content.finding.criteria:
        marks = [ForestMark("this run", judged.estimate)]
        for name, one in controls.items():
            found = (one.get("criteria") or {}).get(judged.criterion.name) if isinstance(one, Mapping) else None
            if found is not None:
                value = (
                    Estimate.undefined("not judged")
                    if found.get("value") is None
                    else Estimate(found["value"], found.get("low"), found.get("high"), judged.criterion.unit, "document", 0, "control")
                )
                marks.append(ForestMark(f"{name} control", value, "control"))
        panels.append(_forest_panel(judged, marks))
    if not any(len(panel.marks) > 1 for panel in panels):
        return []
    return [
        Picture(
            "controls",
            forest(panels),
            "The controls were read through the same shards, estimators and judge as the run.",
            "One panel per criterion: this run, the positive and the negative control.",
        )
    ]


def cut_off_table(content: ReportContent) -> Table | None:
    """rho at each smallest count, mean over layers; None without the table."""
    table = content.evaluation.tables.get("rho_sensitivity")
    if table is None or not len(table["min_count"]):
        return None
    rows = mean_rows(table, "min_count")
    n_types, lows, highs = (
        floats(rows[name]) if name in rows else np.full(len(rows["min_count"]), np.nan) for name in ("n_types", "low", "high")
    )
    null = floats(rows["null"]) if "null" in rows else np.full(len(n_types), np.nan)
    cells: list[list[Cell]] = []
    for i, count in enumerate(rows["min_count"]):
        value = _estimate(floats(rows["rho"])[i], lows[i], highs[i], "rho")
        cells.append(
            [int(count), value, None if np.isnan(n_types[i]) else round(float(n_types[i])), None if np.isnan(null[i]) else float(null[i])]
        )
    return Table(
        "rho_sensitivity",
        "Correlation by smallest count, mean over layers",
        [
            Column("occurrences needed", "number"),
            Column("rho [95% interval]", "estimate"),
            Column("types", "number"),
            Column("null", "number"),
        ],
        cells,
        f"Judged: {min_type_count(content.evaluation)} occurrences on test documents.",
    )


def _estimate(value: float, low: float, high: float, unit: str) -> Estimate:
    if np.isnan(value):
        return Estimate.undefined("too few types", unit=unit)
    bounded = not (np.isnan(low) or np.isnan(high))
    return Estimate(float(value), float(low) if bounded else None, float(high) if bounded else None, unit, "document x type", 0, "table")


VARIANTS = (
    ("freq_entropy_rho", "rho, judged: types with enough occurrences", False),
    ("freq_entropy_rho_partial", "rho given position, dispersion over documents, token length and script", False),
    *((f"freq_entropy_rho_band_{band}", f"rho within positions from {band}", False) for band in BANDS),
    ("freq_entropy_rho_seed", "rho, seed form: every type, frequency and entropy from the same tokens", False),
    ("entropy_share_below", "share of occurrences below the judged threshold", True),
    ("entropy_share_below_half_nat", "share of occurrences below 0.5 nats", True),
    ("entropy_share_below_half_bit", "share of occurrences below 0.5 bits", True),
    ("entropy_type_share_below", "share of token types below the judged threshold", True),
    ("entropy_type_share_below_half_nat", "share of token types below 0.5 nats", True),
    ("fastpath_coverage", "coverage on test documents (judged)", True),
    ("fastpath_coverage_calibration", "coverage on calibration documents", True),
    ("fastpath_coverage_seed", "coverage, seed form: decided and counted on the same tokens", True),
)


def variants_table(content: ReportContent) -> Table:
    """The judged statistics beside their variants."""
    found = [
        (label, share, content.evaluation.estimates[metric]) for metric, label, share in VARIANTS if metric in content.evaluation.estimates
    ]
    rows: list[list[Cell]] = [
        [
            label,
            _shown(value, share),
            "" if value.n is None else f"{value.n:,} {value.n_of or ''}".rstrip(),
            "" if value.null is None else _shown(bare(value.null), share),
        ]
        for label, share, value in found
    ]
    return Table(
        "variants",
        "The same questions asked otherwise",
        [Column(t) for t in ("statistic", "estimate [95% interval]", "n", "null")],
        rows,
        "Only the judged forms enter the verdict.",
    )


def _shown(value: Estimate, share: bool) -> str:
    from experiments.report.display import estimate

    return estimate(value, Column("", "estimate", 1 if share else 3, share))


def sensitivity_section(content: ReportContent) -> Section:
    """Smallest counts, thresholds, layers."""
    pictures = [picture for picture in (sensitivity_picture(content), layers_picture(content)) if picture is not None]
    tables = [table for table in (cut_off_table(content), variants_table(content)) if table is not None]
    first: list[Block] = [*pictures[:1], *tables, *pictures[1:]]
    return Section("sensitivity", "How much hangs on the choices", first, "sensitivity")


def seed_panel(content: ReportContent) -> Section:
    """What the seed's rule says on these data, and in what it differs from ours."""
    seed = content.finding.seed_verdict
    blocks: list[Block] = [Paragraph(str(seed.get("words", "The seed's rule was not applied.")), "lead")]
    if seed.get("reason"):
        blocks.append(Paragraph(f"Undefined: {seed['reason']}"))
    if seed.get("lines"):
        rows: list[list[Cell]] = [["met" if line["passed"] else "not met", line["text"]] for line in seed["lines"]]
        blocks.append(Table("seed_rule", "The seed's criteria on these data", [Column("outcome"), Column("criterion")], rows))
    blocks.append(
        Paragraph(
            "How it differs: the seed compares point values with the bounds and answers yes or no; it counts frequency and entropy on "
            "the same tokens, takes every type however rare, and decides eligibility on the tokens that it then counts. Its p-value "
            "gets small with many types even for a correlation near zero. We compare whole intervals over documents, take frequencies "
            "and eligibility from other documents, and may answer that the data do not settle it.",
            "note",
        )
    )
    return Section("seed-panel", "The seed's own verdict", blocks, "seed")


def appendix(content: ReportContent) -> Section | None:
    """Every layer-wise estimate; None where there is none."""
    by_layer = content.evaluation.by_layer
    judged = {one.criterion.metric for one in content.finding.criteria}
    blocks: list[Block] = [
        Table(
            f"layers_{metric}",
            metric,
            [
                Column("layer", "number"),
                Column("router"),
                Column("estimate [95% interval]", "estimate"),
                Column("n"),
                Column("null", "number"),
            ],
            [
                [i, _router(content, i), value, "" if value.n is None else f"{value.n:,} {value.n_of or ''}".rstrip(), value.null]
                for i, value in enumerate(values)
            ],
        )
        for metric, values in sorted(by_layer.items(), key=lambda item: item[0] not in judged)
        if len(values)
    ]
    if not blocks:
        return None
    return Section(
        "appendix",
        "Appendix: all layers",
        [Paragraph("Single layers are exploratory; only their mean is judged.", "note"), *blocks],
        "appendix",
    )


def _router(content: ReportContent, layer: int) -> str:
    layers = content.trace.meta.layers
    return layers[layer].key if layer < len(layers) else ""


def panels(content: ReportContent) -> Sequence[Section]:
    """All panels of the VAR report; those that need the table of token types are left out where an evaluation has none."""
    found: list[Section | None] = [overview(content), controls_panel(content), seed_panel(content)]
    if "routing_stats" in content.evaluation.tables and len(content.evaluation.tables["routing_stats"]["token_id"]):
        found += [
            Section("key-figure", "Frequency against routing entropy", [key_picture(content)], "key"),
            Section(
                "figures",
                "Entropy, consistency, coverage",
                [entropy_picture(content), consistency_picture(content), coverage_picture(content, chosen_point(content))],
                "figures",
            ),
        ]
    else:
        found.append(
            Section(
                "key-figure",
                "Frequency against routing entropy",
                [Paragraph("Not drawn: no token type was seen on test documents.")],
                "key",
            )
        )
    found += [sensitivity_section(content), sweep_section(content), fastpath_section(content), appendix(content)]
    return [section for section in found if section is not None]


def text_files(content: ReportContent) -> Mapping[str, str]:
    """The seed's two text files, by name."""
    return {"validation_report.txt": validation_report(content), "analysis_summary.txt": analysis_summary(content)}
