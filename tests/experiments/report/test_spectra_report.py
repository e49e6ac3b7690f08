"""The SPECTRA report and the seed's folder: whole content, hostile text, and content in which almost nothing is defined."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from experiments.report import figure_files, write
from experiments.report.blocks import Paragraph, Picture, Table
from experiments.report.content import ReportContent, TraceFacts
from experiments.report.sections import assemble
from experiments.report.spectra_claims import HOLDS, NOTHING_TO_VANISH, caveats, which_holds
from experiments.report.spectra_folder import FOLDER
from experiments.report.spectra_integrity import arms_integrity
from experiments.report.spectra_panels import panels
from experiments.report.spectra_summary import paper_paragraph, summary
from experiments.report.spectra_tables import arms_table, checks_table, layers_table, marks_table, references_table
from experiments.report.topology_columns import View
from experiments.testbed.arms import ARMS
from hypotheses import spectra_facts
from hypotheses.claim import Evaluation
from hypotheses.h05_spectra import SPECTRA, evaluate
from hypotheses.judge import judge
from hypotheses.spectra_controls import KINDS, planted
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.topology_parts import columns
from tests.hypotheses import spectra_worlds as worlds

SEEDS_FILES = {"token_clustering_tsne.pdf", "token_clustering_tsne.png", "expert_affinity_heatmap.pdf", "expert_affinity_heatmap.png",
               "routing_flow_sankey.html", "expert_representation_pca.pdf", "expert_representation_pca.png", "domain_purity_bar.pdf",
               "domain_purity_bar.png"}


def content_of(evidence, evaluation, controls=None):
    meta = evidence.arms["switch_top2"][0].trace.meta
    facts = TraceFacts(meta, 1000, {"padding": 0}, {"verdict": "conforms"}, (), "c0ff" * 16)
    return ReportContent(judge(SPECTRA, evaluation, controls=controls), evaluation, facts, {"documents": {}}, {"command": "make"})


@pytest.fixture(scope="module")
def whole():
    evidence = worlds.orthogonal_only(worlds.World(layers=1), others=(("hash", worlds.Law()),))
    controls = {kind: evaluate(planted(evidence, kind)) for kind in KINDS}
    return content_of(evidence, evaluate(evidence), controls)


@pytest.fixture(scope="module")
def directory(whole, tmp_path_factory):
    found = tmp_path_factory.mktemp("spectra")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure_files, "PRINT_DPI", 20)  # the same files, drawn coarsely
        write(found, whole)
    return found


def blocks_of(content):
    return [block for section in assemble(content, panels(content)) for block in section.blocks]


@pytest.mark.slow  # every figure is drawn
def test_the_folder_has_the_seeds_file_names(directory):
    found = {path.relative_to(directory / FOLDER).as_posix() for path in (directory / FOLDER).rglob("*") if path.is_file()}
    assert found >= SEEDS_FILES
    assert found >= {"specialization_comparison.csv", "specialization_comparison.tex", "expert_domain_affinity.csv", "expert_domain_affinity.tex"}


@pytest.mark.slow  # every figure is drawn
def test_the_report_says_plainly_which_part_holds(whole, directory):
    assert which_holds(View(whole)) in (directory / "report" / "report.html").read_text().replace("&#39;", "'")
    assert HOLDS["orthogonality"]["supported"] in which_holds(View(whole))
    assert HOLDS["specialisation"]["inconclusive"] in which_holds(View(whole))


def test_which_part_holds_opens_the_overview(whole):
    said = [block.text for block in blocks_of(whole) if isinstance(block, Paragraph)]
    assert which_holds(View(whole)) in said


def test_what_could_not_vanish_is_not_said_to_have_vanished(whole):
    assert NOTHING_TO_VANISH["supported"] in which_holds(View(whole))
    assert NOTHING_TO_VANISH["supported"] in paper_paragraph(View(whole))
    (table,) = [block for block in blocks_of(whole) if isinstance(block, Table) and block.name == "collapse"]
    assert [row[0] for row in table.rows] == ["switch_top2"] * 5 + ["spectra"] * 5 + ["hash"]
    assert all(row[2] == 0 and row[4] > 0.1 for row in table.rows)


def test_a_seed_without_a_value_is_never_averaged_away(whole):
    """Of one training of SPECTRA the information, a silhouette reference and the confidence could not be measured."""
    tables = {name: {column: np.array(values, object) for column, values in table.items()} for name, table in whole.evaluation.tables.items()}
    runs, references = tables["runs"], tables["references"]
    gone = (runs["arm"] == "spectra") & (runs["seed"] == 3) & np.isin(runs["metric"], ["mi_E_D", "confidence"])
    runs["value"][gone] = np.nan
    kept = ~(gone & (runs["metric"] == "confidence"))  # no row at all
    tables["runs"] = {name: values[kept] for name, values in runs.items()}
    references["value"][(references["arm"] == "spectra") & (references["seed"] == 3) & (references["reference"] == "silhouette value")] = np.nan
    view = View(replace(whole, evaluation=replace(whole.evaluation, tables=tables)))
    for table, row, column in ((arms_table(view), "mi_E_D", 2), (arms_table(view), "confidence", 2), (layers_table(view), 0, 2),
                               (references_table(view), "silhouette value", 2)):
        (found,) = [one for one in table.rows if one[0] == row]
        assert found[column] == "undefined in 1 of 5 seeds"
        assert isinstance(found[column - 1], float)


def test_loads_are_said_to_be_constrained_and_not_optimised_where_no_loss_evens_them(whole):
    evidence = worlds.orthogonal_only(worlds.World(layers=1), settings=SpectraSettings(judged_only=True))
    arms = {name: [replace(run, optimised=ARMS[name].optimised, constrained=ARMS[name].constrained) for run in runs]
            for name, runs in evidence.arms.items()}
    view = View(replace(whole, evaluation=evaluate(replace(evidence, arms=arms))))
    marks = {row[1]: row[-1] for row in marks_table(view).rows}
    assert marks["collapse_rate"] == ("optimised by the loss of switch_top2; constrained by the choice of experts in the training of spectra")
    assert marks["confidence"] == "optimised by the loss of spectra"
    assert marks["repr_output"] == "neither"


def test_an_equation_that_is_not_met_is_said_first_and_one_that_is_is_not():
    world = worlds.World(layers=2)
    evidence = worlds.null(world, settings=SpectraSettings(judged_only=True))

    def trained(columns, agreement):
        arms = dict(evidence.arms)
        arms["spectra"] = [replace(run, facts={"router_options": {"iterations": 20}},
                                   training=replace(run.training, checks={"row_sums": [1e-7, 2e-7], "column_sums": columns, "gram_rms": [0.1, 0.2]},
                                                    agreement={"first_choice": agreement})) for run in evidence.arms["spectra"]]
        return replace(evidence, arms=arms)

    bad = trained([0.01, 0.4375], [0.354, 0.5])
    said = [one for one in spectra_facts.caveats(bad, None) if "spectra" in one and "own equation" in one]
    assert len(said) == 1
    assert "is up to 0.44 after 20 iterations, above the declared 0.05 in 5 of 10 layers of trainings" in said[0]
    assert any("agree on the first choice of 35% to 50% of the tokens" in one for one in spectra_facts.caveats(bad, None))
    good = [one for one in spectra_facts.caveats(trained([0.01, 0.04], [0.97, 0.99]), None) if "of spectra " in one or one.startswith("spectra")]
    assert not [one for one in good if "equation" in one or "first choice" in one]
    checks = columns(spectra_facts.check_rows([run for runs in bad.arms.values() for run in runs]), spectra_facts.CHECK_COLUMNS)

    class Content:
        evaluation = Evaluation({}, {}, {"checks": checks}, {})

    rows = {(row[1].partition(" ")[0], row[2]): row[-1] for row in checks_table(View(Content())).rows}
    assert rows["columns", "spectra"] == "not met in 5 of 10"
    assert any(row[1].endswith("after 20 iterations") for row in checks_table(View(Content())).rows)
    assert rows["rows", "spectra"] == "met"
    assert rows["gram_rms", "spectra"] == ""  # the equations promise nothing of it


def test_a_flaw_is_said_before_anything_and_in_the_paragraph(whole):
    flawed = {one.metric: ("warm_up (3 of 90 rows): three (in 2 traces, such as spectra, seed 0)", "drop them") for one in SPECTRA.criteria}
    view = View(replace(whole, finding=judge(SPECTRA, whole.evaluation, flawed=flawed)))
    assert [block.text for block in caveats(view).blocks if "warm_up" in block.text][0].startswith("No criterion is decided, whatever its interval")
    assert "Verdicts are withheld (the trace is flawed: warm_up)." in paper_paragraph(view)
    assert "withheld" not in paper_paragraph(View(whole))


def test_an_unmatched_pair_is_not_said_to_be_matched(whole):
    facts = {**whole.evaluation.facts, "confounded": "confounded: parameters 1 against 2"}
    said = paper_paragraph(View(replace(whole, evaluation=replace(whole.evaluation, facts=facts))))
    assert "with which it was not matched" in said
    assert "equal parameters" not in said


def test_findings_in_the_arms_are_shown_and_those_of_the_judged_pair_are_loud(whole):
    entry = {"code": "warm_up", "severity": "invalidating", "count": 3, "of": 90, "unit": "rows", "share": 1 / 30, "words": "three", "remedy": "drop",
             "consequence": "hot", "accepted": False, "invalidates": ["loads"]}
    arms = [{"arm": arm, "seed": 1, "judged": arm != "hash", "findings": [entry] if arm != "switch_top2" else []}
            for arm in ("switch_top2", "spectra", "hash")]
    section = arms_integrity(View(replace(whole, audit={"findings": [], "arms": arms})))
    loud = [block.text for block in section.blocks if isinstance(block, Paragraph) and block.role == "warning"]
    assert len(loud) == 1
    assert loud[0].startswith("warm_up in spectra 1:")
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [list(row[:4]) for row in table.rows] == [["warm_up", "invalidating", "spectra 1; hash 1", "yes"]]
    assert "not audited" in arms_integrity(View(whole)).blocks[0].text


def test_the_paragraph_claims_no_more_than_was_found(whole):
    said = paper_paragraph(View(whole))
    assert said.startswith("SPECTRA makes expert outputs more orthogonal; whether experts specialise more by domain these trainings do not settle.")
    assert "%" not in said.replace("95%", "").replace("90%", "")
    refuted = replace(whole.finding, criteria=tuple(replace(one, outcome="refuted") if one.criterion.name.startswith("specialisation") else one
                                                    for one in whole.finding.criteria))
    assert "but orthogonality does not bring specialisation" in paper_paragraph(View(replace(whole, finding=refuted)))
    failed = replace(whole.finding, verdict=None, reason="controls failed")
    assert paper_paragraph(View(replace(whole, finding=failed))) == "No statement can be made: controls failed."


@pytest.mark.slow  # every figure is drawn
def test_the_results_table_has_the_seeds_rows_and_no_percentage(directory):
    rows = list(csv.DictReader((directory / FOLDER / "specialization_comparison.csv").open()))
    names = [row["metric"].rpartition(" (")[0] or row["metric"] for row in rows]
    assert names[:9] == ["Expert Affinity (avg)", "Domain Purity (avg)", "Silhouette Score", "Expert Diversity (NMI)", "Routing Confidence",
                         "Repr. Distance (avg)", "Gram Orthogonality", "Expert Collapse Rate", "Overall Specialization"]
    assert not [field for row in rows for field in row.values() if field and field.endswith("%")]
    assert [row["reason"] for row in rows][8].startswith("refused")
    tex = (directory / FOLDER / "specialization_comparison.tex").read_text()
    assert tex.count(r"\begin{tabular}") == 1
    assert tex.count(r" \\") == len(rows) + 1


@pytest.mark.slow  # every figure is drawn
def test_the_page_of_flows_is_whole_and_asks_nobody(directory):
    page = (directory / FOLDER / "routing_flow_sankey.html").read_text()
    assert page.count('"type":"sankey"') == 3  # both arms and hash
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)


@pytest.mark.slow  # every figure is drawn
def test_text_from_documents_is_escaped(directory):
    text = (directory / "report" / "report.html").read_text()
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text


@pytest.mark.slow  # every figure is drawn
def test_results_are_plain_json(directory):
    found = json.loads((directory / FOLDER / "results.json").read_text())
    assert found["parts"] == {"orthogonality": "supported", "specialisation": "inconclusive", "collapse": "inconclusive", "loss": "supported"}


def test_two_seeds_say_nothing_of_the_method():
    evidence = worlds.planted(worlds.World(seeds=2, layers=1), settings=SpectraSettings(judged_only=True))
    view = View(content_of(evidence, evaluate(evidence)))
    assert "stays open" in which_holds(view)
    assert "too_few_seeds" in summary(view, ()).replace("\\", "")


def test_an_evaluation_without_tables_is_a_report_without_pictures(whole):
    bare = replace(whole, evaluation=Evaluation({}, {}, {}, {}), finding=judge(SPECTRA, Evaluation({}, {}, {}, {})))
    blocks = blocks_of(bare)
    assert not [block for block in blocks if isinstance(block, Picture) and not block.name.startswith("claim_")]
    assert any(isinstance(block, Paragraph) and "is not drawn" in block.text for block in blocks)


@pytest.mark.parametrize("kind", [Table, Picture])
def test_every_table_and_picture_has_a_name_of_its_own(whole, kind):
    names = [block.name for block in blocks_of(whole) if isinstance(block, kind)]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
