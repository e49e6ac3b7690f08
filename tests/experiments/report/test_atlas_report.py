"""The atlas' page and folder: whole content, counts, one document a domain, many experts and layers, hostile names."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.atlas_controls import AtlasPlan
from analysis.audit import flaw
from analysis.figures.atlas_domains import DomainMap, Separation, domain_maps, separation_by_layer
from analysis.figures.atlas_sequence import SelectionTrace, selection_traces, usage_timeline
from analysis.figures.atlas_usage import LayerLoads, expert_frequency, load_map
from analysis.trace import CountsTrace
from experiments.report import atlas_sections, figure_files
from experiments.report.atlas_folder import FOLDER, folder, seed_keys, uniform_range
from experiments.report.atlas_next import blocks as next_blocks
from experiments.report.atlas_view import read_first
from experiments.report.blocks import Paragraph, Picture, Table
from experiments.report.content import ReportContent, TraceFacts
from experiments.report.joint import Joint, write_joint
from experiments.report.writer import write
from hypotheses import h03_repetition, h04_domain_specialisation
from hypotheses.atlas_evaluation import describe
from hypotheses.atlas_evidence import AtlasEvidence, AtlasSettings
from hypotheses.judge import judge
from tests.hypotheses.atlas_worlds import counts_of, world

FAST = AtlasSettings(n_permutations=199, lags=(1, 2), threads=1)
PLAN = AtlasPlan(1.0, 0.2, 0.3)
HOSTILE = "<script>alert(1)</script>"
CLAIMS = ((h03_repetition.REPETITION, h03_repetition.evaluate), (h04_domain_specialisation.DOMAIN_SPECIALISATION, h04_domain_specialisation.evaluate))
SEEDS_FILES = {"comprehensive_expert_statistics.json", "proper_3d_statistics.json", "sample_trace_paths.json", "comparative_layer_statistics.png",
               "expert_selection_traces.png", "expert_transition_heatmap.png", "expert_usage_timeline.png"}


def contents_of(trace):
    """A content for each claim, judged without controls, and the description."""
    evidence = AtlasEvidence(trace, FAST)
    facts = TraceFacts(trace.meta, 1000, {}, {}, (), "c0ff" * 16)
    made = []
    for claim, evaluate in CLAIMS:
        evaluation = evaluate(evidence)
        made.append(ReportContent(judge(claim, evaluation, controls=dict.fromkeys(claim.controls, evaluation)), evaluation, facts, {}, {}))
    return made, describe(evidence)


def whole(trace):
    contents, description = contents_of(trace)
    view = atlas_sections.view_of(contents[0], description)
    return contents, view, atlas_sections.sections(view, [content.finding for content in contents])


def blocks_of(sections):
    return [block for section in sections for block in section.blocks]


def undrawn(sections):
    """The sections without figures, which take most of the time to write."""
    return [replace(section, blocks=[block for block in section.blocks if not isinstance(block, Picture)]) for section in sections]


def said(sections):
    return " ".join(block.text for block in blocks_of(sections) if isinstance(block, Paragraph))


@pytest.fixture(scope="module")
def planted():
    return whole(world(PLAN, domains=3, test=24, calibration=0, length=40, layers=2))


@pytest.fixture(scope="module")
def directory(planted, tmp_path_factory):
    found = tmp_path_factory.mktemp("atlas")
    contents, view, sections = planted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure_files, "PRINT_DPI", 20)
        write_joint(found, Joint("An atlas", contents, sections))
        for name, file in folder(view, sections, found / "figures").items():
            (found / name).parent.mkdir(parents=True, exist_ok=True)
            (found / name).write_bytes(file)
    return found


def test_the_folder_has_the_seeds_files(directory):
    found = {path.name for path in (directory / FOLDER).iterdir() if path.is_file()}
    assert found >= SEEDS_FILES | {f"layer_{n}_expert_frequency.png" for n in range(2)}
    assert (directory / FOLDER / "expert_usage_timeline.png").read_bytes() == (directory / "figures" / "expert_usage_timeline.png").read_bytes()


def test_json_files_have_the_seeds_keys(directory, planted):
    _, view, _ = planted
    rows = json.loads((directory / FOLDER / "comprehensive_expert_statistics.json").read_text())
    assert list(rows) == ["0", "1"] and set(rows["1"]) == {*seed_keys(), "ours"}
    printed = {"layer_id", "mean", "std", "coefficient_of_variation", "entropy_bits", "active_experts", "expert_diversity", "skewness", "kurtosis"}
    assert printed <= set(rows["1"])
    loads = {row["expert"]: row["n"] for row in view.rows("loads") if row["layer"] == 1}
    assert rows["1"]["mean"] == pytest.approx(np.mean(list(loads.values())))
    assert rows["1"]["ours"]["cv"]["low"] < rows["1"]["coefficient_of_variation"] and rows["1"]["ours"]["cv"]["null"] is not None
    nested = json.loads((directory / FOLDER / "proper_3d_statistics.json").read_text())
    assert nested["1"] == {str(expert): n for expert, n in loads.items()}
    paths = json.loads((directory / FOLDER / "sample_trace_paths.json").read_text())
    assert {"layer_id", "sample_id", "sequence_length", "target_top_k"} <= set(paths[0]) and len(paths) == 4 * 2
    assert paths[0]["sequence_length"] == len(paths[0]["target_top_k"]) and paths[0]["sample_id"].endswith("_layer_0")


def test_the_page_has_every_part_in_order(planted, directory):
    _, _, sections = planted
    assert [section.id for section in sections] == ["caveats", "overview", "usage", "domains", "layers", "sequence", "next"]
    drawn = {block.name for block in blocks_of(sections) if isinstance(block, Picture)}
    assert drawn >= {"expert_load_map", "comparative_layer_statistics", "domain_experts", "expert_kinds", "domain_entropy", "domain_separation",
                     "separated_layers", "repetition", "expert_transition_heatmap", "expert_usage_timeline", "expert_selection_traces"}
    text = (directory / "report" / "report.html").read_text()
    assert "../hypotheses/repetition/report/report.html" in text and "seed: p (naive)" in text and "Verdicts" in text


def test_what_a_flaw_spoils_is_read_first(planted):
    _, view, _ = planted
    entry = {**flaw("shared_prefix", 20, 100, "rows", "all begin alike").to_json(), "accepted": False}
    slight = {**flaw("special_tokens", 5, 100, "rows", "2 token types are declared special").to_json(), "accepted": False}
    flawed, accepted, clean = (replace(view, content=replace(view.content, audit={"findings": found}))
                               for found in ([entry], [{**entry, "accepted": True}], []))
    spoken = [said([read_first(one)]) for one in (flawed, accepted, clean)]
    assert "shared_prefix: all begin alike. It spoils domains, intervals" in spoken[0] and spoken[1] == spoken[2] and "spoils" not in spoken[1]
    warned = said([read_first(replace(view, content=replace(view.content, audit={"findings": [slight]})))])
    assert "special_tokens (5.0% of rows): 2 token types are declared special" in warned and "spoils" not in warned


def test_names_are_unique(planted):
    _, _, sections = planted
    for kind in (Picture, Table):
        names = [block.name for block in blocks_of(sections) if isinstance(block, kind)]
        assert len(names) == len(set(names))


def test_next_steps_follow_from_verdicts(planted):
    contents, view, _ = planted

    def steps(*findings):
        return [str(row[2]) for row in next_blocks(view, findings)[1].rows]

    repetition, domains = (content.finding for content in contents)
    assert "first settle it: below its floor" in steps(repetition, domains)[0]
    assert "specialists are listed" in steps(repetition, replace(domains, verdict="supported"))[0]
    assert "other labels" in steps(repetition, replace(domains, verdict="refuted"))[0]
    assert "transition matrices" in steps(replace(repetition, verdict="supported"), domains)[1]
    judged = tuple(replace(one, outcome="refuted") if one.criterion.metric == "repetition_order_higher" else one for one in repetition.criteria)
    assert "composition of documents" in steps(replace(repetition, verdict="refuted", criteria=judged), domains)[1]
    assert "judge the claim first" in steps(domains)[1]


def test_counts_say_plainly_what_cannot_be_said(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)
    contents, view, sections = whole(counts_of(world(PLAN, domains=3, test=6, calibration=0)))
    write_joint(tmp_path, Joint("Counts", contents, undrawn(sections)))
    text = said(sections)
    assert "Only counts were kept" in text and "untestable" in text and "Nothing can be said along documents" in text
    files = folder(view, undrawn(sections), tmp_path / "figures")
    assert f"{FOLDER}/layer_2_expert_frequency.png" in files and f"{FOLDER}/expert_usage_timeline.png" not in files
    assert json.loads(files[f"{FOLDER}/sample_trace_paths.json"]) == []
    assert "Inconclusive" in write(tmp_path / "repetition", contents[0]).read_text()


def test_one_document_per_domain_is_untestable_in_words():
    _, _, sections = whole(world(PLAN, domains=12, test=1, calibration=0, length=60, layers=2))
    assert "One document per domain" in said(sections) and "there is no test: untestable" in said(sections)


def test_one_domain_one_layer_and_one_choice_are_a_page():
    _, _, sections = whole(world(PLAN, domains=1, layers=1, k=1, test=4, calibration=0))
    assert "nothing can be said across domains" in said(sections) and "k = 1" in said(sections)


def test_an_empty_layer_of_counts_is_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)
    counts = counts_of(world(PLAN, domains=2, test=3, calibration=0))
    hollow = CountsTrace(counts.meta, counts.domains, (np.zeros_like(counts.counts[0]), *counts.counts[1:]), tokens=counts.tokens)
    _, view, sections = whole(hollow)
    files = folder(view, undrawn(sections), tmp_path)
    assert f"{FOLDER}/layer_0_expert_frequency.png" not in files and f"{FOLDER}/layer_1_expert_frequency.png" in files


def test_hostile_names_stay_text(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_files, "PRINT_DPI", 20)
    trace = world(PLAN, domains=2, test=4, calibration=0, layers=1)
    named = replace(trace, documents=[replace(row, domain=HOSTILE if row.domain == "domain0" else "=1+1|$x$`") for row in trace.documents])
    contents, view, sections = whole(named)
    page = write_joint(tmp_path, Joint(HOSTILE, contents, undrawn(sections)))
    assert "<script>" not in page.read_text() and "&lt;script&gt;" in page.read_text() and "<script>" not in (page.parent / "report.md").read_text()
    tables = folder(view, undrawn(sections), tmp_path)[f"{FOLDER}/tables/domain_entropy.csv"].decode()
    assert ",=1+1" not in tables and "'=1+1" in tables


def test_figures_hold_128_experts_in_48_layers():
    rng = np.random.default_rng(0)
    shares = [rng.dirichlet(np.ones(128)) for _ in range(48)]
    figure = load_map(shares, [str(n) for n in range(48)])
    image = figure.axes[0].images[0]
    assert image.get_array().shape == (48, 128) and figure.get_figheight() <= 7.5
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert 8 <= len(ticks) <= 33 and ticks[0] == "0"
    assert len(expert_frequency(LayerLoads(rng.poisson(3, 128), "47")).axes[0].patches) >= 128
    maps = domain_maps([DomainMap(f"Layer {n}", rng.dirichlet(np.ones(128), 6), [f"domain {d}" for d in range(6)]) for n in range(5)])
    assert len([axes for axes in maps.axes if axes.images]) == 5
    assert usage_timeline([rng.dirichlet(np.ones(128), 24)] * 3, ["a", "b", "c"], [str(n) for n in range(24)]).axes[0].images
    rows = [[SelectionTrace("d", range(64), rng.integers(0, 128, 64)) for _ in range(3)] for _ in range(4)]
    assert len(selection_traces(rows, 128).axes) == 12
    shown = separation_by_layer(Separation(range(48), -rng.uniform(0, 900, 48), np.full(48, np.nan), [None] * 48, [None] * 48))
    assert "untestable" in " ".join(text.get_text() for text in shown.axes[1].texts)


def test_the_range_of_uniform_routing_is_binomials():
    from scipy.stats import binom

    low, high = uniform_range(np.full(8, 25), 2)  # 100 tokens choose 2 of 8: an expert's load is Binomial(100, 1/4)
    assert (low, high) == (binom.ppf(0.025, 100, 0.25), binom.ppf(0.975, 100, 0.25))
    assert uniform_range(np.zeros(8, np.int64), 2) is None and uniform_range(np.full(2, 5), 2) is None
