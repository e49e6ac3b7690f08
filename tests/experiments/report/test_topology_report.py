"""The topology report and the seed's folder: whole content, and content in which almost nothing is defined."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.estimate import Estimate
from analysis.gates import ILL_POSED
from experiments.report import figure_files, write
from experiments.report.blocks import Paragraph, Picture, Table
from experiments.report.content import ReportContent, TraceFacts
from experiments.report.sections import assemble
from experiments.report.table_files import as_csv, as_tex
from experiments.report.topology_columns import View, estimate_of, in_full, rows_of
from experiments.report.topology_domains import groups_words, pairs_picture, topics_table
from experiments.report.topology_folder import FOLDER
from experiments.report.topology_layers import pair_table
from experiments.report.topology_panels import panels, threshold_section
from experiments.report.topology_predictor import retention_words
from experiments.report.topology_summary import paper_section
from hypotheses.claim import Evaluation
from hypotheses.h02_topology import TOPOLOGY, evaluate
from hypotheses.judge import judge
from hypotheses.topology_evidence import TopologyEvidence, TopologySettings
from tests.hypotheses.topology_worlds import corpus, planted, predictions

FAST = TopologySettings(n_shifts=39, n_map_shifts=3, n_decomposition=3, n_null_clusters=19, n_edge_shifts=99, n_permutations=99,
                        n_type_replicates=9, n_type_permutations=9, threads=1)
HOSTILE = "<script>alert(1)</script>"
SEEDS_FILES = {f"mutual_information/{name}.{kind}" for name in ("cross_layer_mi", "cross_domain_mi", "predictor_mi", "mi_vs_retention")
               for kind in ("csv", "tex", "pdf", "png")}
SEEDS_FILES |= {f"clustering/{name}.{kind}" for name in ("expert_coactivation", "cross_layer_correlation", "domain_specialization")
                for kind in ("csv", "tex", "pdf", "png")}
SEEDS_FILES |= {f"temporal/{name}.{kind}" for name in ("transition_matrix", "autocorrelation") for kind in ("csv", "tex", "pdf", "png")}
SEEDS_FILES |= {f"{name}.{kind}" for name in ("clustering/expert_dendrogram", "temporal/routing_chains") for kind in ("pdf", "png")}
SEEDS_FILES |= {"summary/MI_CLUSTERING_SUMMARY.md", "summary/key_findings.json", "summary/all_results_table.csv", "summary/all_results_table.tex"}
IN_THE_SEEDS_PLACE = {"coactivation", "cross_layer_correlation", "domain_specialization", "transition_matrix", "autocorrelation"}


def content_of(trace, evaluation, **changes):
    facts = TraceFacts(trace.meta, 1000, {"padding": 0}, {"verdict": "conforms"}, (), "c0ff" * 16)
    finding = judge(TOPOLOGY, evaluation, controls={"positive": evaluation})
    return ReportContent(finding, evaluation, facts, {"documents": {}}, {"command": "make"}, **changes)


def planted_content(predictor=True, **shape):
    trace = planted("positive", **shape)
    predicted = predictions(experts=shape.get("experts", 8), layers=tuple(range(1, len(trace.meta.layers)))) if predictor else None
    return content_of(trace, evaluate(TopologyEvidence(trace, FAST, predictor=predicted)))


@pytest.fixture(scope="module")
def whole():
    return planted_content(test=52, calibration=12, length=24, layers=2)


@pytest.fixture(scope="module")
def whole_sections(whole):
    return assemble(whole, panels(whole))


@pytest.fixture(scope="module")
def directory(whole, tmp_path_factory):
    found = tmp_path_factory.mktemp("topology")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure_files, "PRINT_DPI", 20)  # the same files, drawn coarsely
        write(found, whole)
    return found


def blocks_of(content):
    return [block for section in assemble(content, panels(content)) for block in section.blocks]


def test_the_folder_has_the_seeds_layout_and_every_table_of_the_evaluation(directory, whole):
    found = {path.relative_to(directory / FOLDER).as_posix() for path in (directory / FOLDER).rglob("*") if path.is_file()}
    others = {f"tables/{name}.{kind}" for name in set(whole.evaluation.tables) - IN_THE_SEEDS_PLACE for kind in ("csv", "tex")}
    assert found == SEEDS_FILES | {"clustering/cross_layer_sankey.html"} | others
    assert {f"tables/{name}.csv" for name in (
        "mi_by_distance", "decomposition", "learning_curve", "predictor_mi", "domain_pairs", "cross_domain_mi", "cluster_consistency",
        "expert_specialization", "wiki_topics", "wiki_cross_domain_mi", "predictor_home", "retention")} <= others
    for name in set(whole.evaluation.tables) - IN_THE_SEEDS_PLACE - {"threshold_curve"}:
        with (directory / FOLDER / "tables" / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(next(iter(whole.evaluation.tables[name].values()))), name
        assert len((directory / FOLDER / "tables" / f"{name}.tex").read_text().splitlines()) < 75, name


def test_a_long_table_is_whole_in_its_csv_and_says_on_the_page_what_it_leaves_out(whole):
    n, rows = 66, whole.evaluation.tables["cross_layer_mi"]
    longer = {name: np.repeat(values, n) if isinstance(values, np.ndarray) else list(values) * n for name, values in rows.items()}
    table = pair_table(View(replace(whole, evaluation=replace(whole.evaluation, tables={"cross_layer_mi": longer}))))
    assert len(list(csv.DictReader(as_csv(table).splitlines()))) == n and len(table.printed) == 12
    assert "12 of 66 rows; all of them in cross" in as_tex(table).replace("\\", "") and len(as_tex(table).splitlines()) < 30


def test_what_every_predictor_keeps_elsewhere_stands_beside_prophets(whole, whole_sections):
    tables = {block.name: block for section in whole_sections for block in section.blocks if isinstance(block, Table)}
    heads = [column.title.partition(" [")[0] for column in tables["retention"].columns]
    assert heads == ["source", "target", "Prophet", "without cross-layer attention", "previous layer (Markov)"]
    mean, *pairs = tables["retention"].rows
    assert mean[0] == "mean" and len(pairs) == 2
    assert mean[2].value == pytest.approx(np.mean([row[2].value for row in pairs]))
    assert mean[2].value == pytest.approx(whole.evaluation.estimates["retention"].value)
    gains = {row[0]: row[1] for row in tables["predictor_gains"].rows}
    assert gains["gain over the Markov table of the previous layer"] == whole.evaluation.estimates["markov_gain"]
    assert gains["gain in accuracy over the Markov table"].low > 0


def test_the_control_of_topics_stands_beside_the_domains(whole):
    facts = {"documents": {"a": 25, "b": 8, "c": 16}, "groups": {"a": ["a"], "b + c": ["b", "c"]}, "floor": 20}
    known = {"wiki_transfer_info": Estimate(1.25, 1.2, 1.3, "bits", "document", 49, "given")}
    evaluation = replace(whole.evaluation, facts={**whole.evaluation.facts, "topics": facts}, estimates={**whole.evaluation.estimates, **known})
    view = View(replace(whole, evaluation=evaluation))
    assert topics_table(view).rows[0][1:3] == [whole.evaluation.estimates["transfer_info"], known["wiki_transfer_info"]]
    assert groups_words(view) == (
        "Test documents by topic: a 25, b 8, c 16. Topics with fewer than 20 are joined by name, before any routing is looked at: b + c (24). "
        "20 of each of the 3 topics would let every one stand for itself.")


def test_files_of_the_folder_are_those_of_the_report(directory):
    for path, name in (("mutual_information/cross_layer_mi", "cross_layer_mi"), ("temporal/autocorrelation", "autocorrelation"),
                       ("clustering/expert_dendrogram", "expert_dendrogram")):
        for kind in ("png", "pdf"):
            assert (directory / FOLDER / f"{path}.{kind}").read_bytes() == (directory / "figures" / f"{name}.{kind}").read_bytes()
    for name in ("cross_layer_mi", "cross_domain_mi", "predictor_mi", "mi_vs_retention"):
        for kind in ("csv", "tex"):
            ours = directory / FOLDER / "mutual_information" / f"{name}.{kind}"
            assert ours.read_bytes() == (directory / "report" / "tables" / f"{name}.{kind}").read_bytes()


def test_long_tables_are_whole_as_csv_and_short_as_tex(directory, whole):
    with (directory / FOLDER / "clustering" / "expert_coactivation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(whole.evaluation.tables["coactivation"]["i"])
    tex = (directory / FOLDER / "clustering" / "expert_coactivation.tex").read_text()
    assert f"60 of {len(rows)} rows" in tex
    assert len(tex.splitlines()) < 75


def test_key_findings_hold_every_estimate_and_claim(directory, whole):
    found = json.loads((directory / FOLDER / "summary" / "key_findings.json").read_text())
    assert found["verdict"] == whole.finding.verdict
    assert [claim["claim"] for claim in found["claims"]] == [1, 2, 3, 4]
    assert sum(len(claim["criteria"]) for claim in found["claims"]) == len(TOPOLOGY.criteria)
    assert Estimate.from_json(found["estimates"]["mi_first_choice"]) == whole.evaluation.estimates["mi_first_choice"]
    assert found["seeds_own_form"] == dict(whole.evaluation.facts["seed_rule"])


def test_the_paper_section_has_its_numbers(whole):
    text = paper_section(View(whole))
    mi = whole.evaluation.estimates["mi_first_choice"]
    assert f"{mi.value:.2f} bits" in text
    assert "X.X" not in text
    assert "of the theoretical maximum" in text
    assert all(f"**5.{n}" in text for n in (1, 2, 3, 4))


def test_all_figures_of_the_plan_are_drawn(whole_sections):
    drawn = {block.name for section in whole_sections for block in section.blocks if isinstance(block, Picture)}
    assert drawn >= {
        "cross_layer_mi", "mi_by_distance", "mi_by_layer", "decomposition", "cross_domain_mi", "mi_per_pair", "mi_vs_retention", "predictor_mi",
        "learning_curve", "predictor_layers_domains", "expert_dendrogram", "expert_coactivation", "expert_network", "cross_layer_correlation",
        "cross_layer_sankey", "pathways", "domain_specialization", "specialisation_histogram", "specialisation_extremes", "transition_matrix",
        "autocorrelation", "routing_chains", "paper_x", "paper_y", "paper_z", "verdict_against_threshold", "claim_1", "claim_2", "claim_3", "claim_4"}


def test_claims_come_in_order_and_caveats_before_criteria(whole_sections):
    ids = [section.id for section in whole_sections]
    assert ids.index("caveats") < ids.index("criteria") < ids.index("claim-1")
    assert [one for one in ids if one.startswith("claim-")] == ["claim-1", "claim-2", "claim-3", "claim-4"]


def test_the_seeds_ill_posed_number_has_its_row_and_reason(directory):
    with (directory / "report" / "tables" / "cross_domain_mi.csv").open() as file:
        first = next(csv.DictReader(file))
    assert first["reason"].startswith(ILL_POSED) and "not paired" in first["reason"]
    assert r"ill\_posed" in (directory / FOLDER / "summary" / "MI_CLUSTERING_SUMMARY.md").read_text()


def test_each_claim_has_its_own_outcome_and_limiting_criterion(whole, whole_sections):
    for number, prefix in enumerate(("topology_not_data", "structured", "captured", "generalises"), 1):
        (section,) = [one for one in whole_sections if one.id == f"claim-{number}"]
        said = [block.text for block in section.blocks if isinstance(block, Paragraph)]
        assert said[0].startswith(f"Claim {number} of the seed: ")
        (limiting,) = [text for text in said if text.startswith("Limiting criterion: ")]
        names = [one.criterion.name.partition(".")[2].replace("_", " ") for one in whole.finding.criteria if one.criterion.name.startswith(prefix)]
        assert any(limiting.startswith(f"Limiting criterion: {name}, ") for name in names)
        never = [text for text in said if "cannot be supported on these domains" in text]
        assert len(never) == (number == 4 and (whole.evaluation.estimates["mi_vs_retention"].gate or "").startswith("untestable"))


def test_names_are_unique(whole_sections):
    for kind in (Picture, Table):
        names = [block.name for section in whole_sections for block in section.blocks if isinstance(block, kind)]
        assert len(names) == len(set(names))


def test_the_curve_of_a_flawed_trace_is_not_drawn_and_says_why(whole):
    judged = judge(TOPOLOGY, whole.evaluation, flawed={one.metric: ("ids_repeat: rows are broken", "collect again") for one in TOPOLOGY.criteria[:3]})
    rows = {"criterion": [one.name for one in TOPOLOGY.criteria], "threshold": np.ones(10), "outcome": ["supported"] * 10}
    content = replace(whole, finding=judged, evaluation=replace(whole.evaluation, tables={"threshold_curve": rows}))
    blocks = threshold_section(View(content)).blocks
    (said,) = [block.text for block in blocks if isinstance(block, Paragraph) and "rows are broken" in block.text]
    assert said.startswith(f"No threshold would settle {', '.join(one.name for one in TOPOLOGY.criteria[:3])}: ")
    assert any(isinstance(block, Picture) for block in blocks)


def test_the_p_of_the_rank_correlation_stands_beside_rho(whole):
    known = {"mi_vs_retention": Estimate(0.85, 0.7, 0.9, "r", "document", 100, "Fisher", plug_in=0.85, n=30, n_of="ordered pairs of domains"),
             "mi_vs_retention_spearman": Estimate(0.61, None, None, "rho", "document", 100, "exact", plug_in=0.61, p=0.0125)}
    view = View(replace(whole, evaluation=replace(whole.evaluation, estimates={**whole.evaluation.estimates, **known})))
    words = "; rho = 0.61, one-sided p = 0.013 by permutation of domain labels"
    assert retention_words(view).endswith(f"r = 0.85 [0.70, 0.90], 30 ordered pairs of domains{words}")
    assert f"r = 0.85 (95% interval 0.70 to 0.90){words}." in paper_section(view)


def test_numbers_over_all_pairs_and_of_the_pair_that_decides_are_told_apart(whole):
    known = {name: Estimate(value, value - 0.1, value + 0.1, "", "document", 100, "given", level)
             for name, value, level in (("coact_mantel", 0.7, 0.95), ("coact_consistency", 0.97, 0.9), ("coact_consistency_min", 0.41, 0.9))}
    text = paper_section(View(replace(whole, evaluation=replace(whole.evaluation, estimates={**whole.evaluation.estimates, **known}))))
    assert "0.70 (95% interval 0.60 to 0.80), mean over pairs of domains" in text and "no verdict may rest" not in text.partition("**5.3")[2]
    barred = {name: replace(one, gate="undersampled: few") for name, one in known.items()}
    again = paper_section(View(replace(whole, evaluation=replace(whole.evaluation, estimates={**whole.evaluation.estimates, **barred}))))
    assert again.partition("**5.3")[2].count("undersampled: few") == 1
    assert "is 0.97 (90% interval 0.87 to 1.07), mean over pairs, and 0.41 (90% interval 0.31 to 0.51) in the pair that decides" in text


def test_headings_name_the_level_of_the_intervals(whole, whole_sections):
    titles = {block.name: [column.title for column in block.columns] for section in whole_sections for block in section.blocks
              if isinstance(block, Table)}
    assert "estimate [90% interval]" in titles["layers_coact_consistency"] and "estimate [95% interval]" in titles["layers_coact_mantel"]
    assert "estimate [interval]" in titles["criteria"]
    (criteria,) = [block for section in whole_sections for block in section.blocks if isinstance(block, Table) and block.name == "criteria"]
    assert "Intervals: 95%; 90% of topology_not_data.cluster_invariance." in criteria.note


def test_one_layer_one_domain_and_one_choice_say_why():
    content = planted_content(predictor=False, domains=1, layers=1, k=1, test=12, calibration=4)
    blocks = blocks_of(content)
    said = " ".join(block.text for block in blocks if isinstance(block, Paragraph))
    assert "one MoE layer" in said and "one domain" in said and "k=1" in said
    assert {block.name for block in blocks if isinstance(block, Picture)} >= {"transition_matrix", "autocorrelation", "routing_chains"}
    assert "undefined" in paper_section(View(content))


def test_everything_undefined_is_written_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)
    names = {criterion.metric for criterion in TOPOLOGY.criteria}
    nothing = Evaluation({name: Estimate.undefined("no_data: the trace is empty") for name in names})
    trace = corpus(domains=1, test=1, calibration=0)
    page = write(tmp_path, content_of(trace, nothing))
    text = page.read_text()
    assert "no_data: the trace is empty" in text
    found = {path.name for path in (tmp_path / FOLDER).rglob("*") if path.is_file()}
    assert {"MI_CLUSTERING_SUMMARY.md", "key_findings.json", "all_results_table.tex", "cross_layer_mi.csv", "transition_matrix.tex"} <= found
    assert "Figures that could not be drawn" in (tmp_path / FOLDER / "summary" / "MI_CLUSTERING_SUMMARY.md").read_text()


def test_hostile_domain_names_stay_text(whole, tmp_path, monkeypatch):
    def renamed(value):
        return value.replace("domain0", HOSTILE).replace("domain1", "=1+1|$x$`") if isinstance(value, str) else value

    tables = {name: {column: [renamed(one) for one in values] if isinstance(values, list) else values for column, values in table.items()}
              for name, table in whole.evaluation.tables.items() if name in ("cross_domain_mi", "retention", "predictor_mi", "cluster_consistency")}
    counted = {renamed(name): n for name, n in whole.evaluation.facts["n_documents_per_domain"].items()}
    facts = {**whole.evaluation.facts, "n_documents_per_domain": counted, "caveats": [HOSTILE]}
    content = replace(whole, evaluation=replace(whole.evaluation, tables=tables, facts=facts))
    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)
    page = write(tmp_path, content)
    for path in (page, page.parent / "report.md", tmp_path / FOLDER / "summary" / "MI_CLUSTERING_SUMMARY.md"):
        assert "<script>" not in path.read_text()
    assert "&lt;script&gt;" in page.read_text()
    lines = (page.parent / "tables" / "mi_vs_retention.csv").read_text().splitlines()
    assert not any(line.startswith("=") for line in lines) and any(line.startswith("'=1+1") for line in lines)


def test_rows_and_estimates_of_tables():
    rows = rows_of({"value": np.array([1.5, np.nan, 2.0]), "low": np.array([1.0, np.nan, np.nan]), "high": np.array([2.0, np.nan, np.nan]),
                    "status": ["estimated", "undefined", "gated"], "reason": ["", "no_data: none", "undersampled: few"]})
    first, second, third = (estimate_of(row, unit="bits") for row in rows)
    assert (first.value, first.low, first.high, first.gate) == (1.5, 1.0, 2.0, None)
    assert (second.value, second.reason) == (None, "no_data: none")
    assert (third.value, third.low, third.gate) == (2.0, None, "undersampled: few")
    assert in_full([[first, ""], [second, ""], [third, "undersampled: few"]], "Note.") == (
        "Note. Reasons in full: no_data: none; undersampled: few.")
    assert in_full([["a", ""]]) == ""


def test_where_no_declared_pair_is_in_the_trace_its_own_pairs_are_shown(whole):
    picture = pairs_picture(View(whole))  # domain0 and domain1; the declared pairs are of the six domains
    assert isinstance(picture, Picture) and picture.caption.startswith("None of the pairs declared beforehand")
