"""The four parts of the SPECTRA claim, each with its words; which of them holds, in plain sentences; the seed's own rule."""

from __future__ import annotations

from analysis.gates import UNTESTABLE
from experiments.report.blocks import Block, Cell, Column, Paragraph, Section, Table
from experiments.report.topology_claims import Claim, judged_of, outcome_of, overview_table
from experiments.report.topology_columns import View
from hypotheses.claim import Outcome
from hypotheses.judge import FLAWED

CLAIMS = (
    Claim("orthogonality", 1, "Orthogonality is obtained", "representation distance 0.7 to 0.9 for SPECTRA against 0.3 to 0.4, Gram entries near 0"),
    Claim("specialisation", 2, "Specialisation by domain rises", "affinity, purity and silhouettes well above those of Switch"),
    Claim("collapse", 3, "Experts collapse under the baseline and none does under SPECTRA", "expert collapse rate 0 % for SPECTRA; the seed says "
          "nothing of the baseline's, without which nothing vanishes"),
    Claim("loss", 4, "The language model is not worse", "none: the seed does not look at the loss, by which an arm could win everything else"),
)
HOLDS: dict[str, dict[Outcome, str]] = {
    "orthogonality": {"supported": "SPECTRA makes the outputs of experts more orthogonal.",
                      "refuted": "SPECTRA does not make the outputs of experts more orthogonal.",
                      "inconclusive": "Whether SPECTRA makes the outputs of experts more orthogonal stays open."},
    "specialisation": {"supported": "Experts specialise more by domain under SPECTRA.",
                       "refuted": "Experts do not specialise more by domain under SPECTRA.",
                       "inconclusive": "Whether experts specialise more by domain under SPECTRA stays open."},
    "collapse": {"supported": "Experts collapse under the baseline, fewer do under SPECTRA, and in a further SPECTRA training none is expected to.",
                 "refuted": "Collapse does not vanish under SPECTRA.",
                 "inconclusive": "Whether collapse vanishes under SPECTRA stays open."},
    "loss": {"supported": "The language model is not worse than the baseline's, within the declared margin.",
             "refuted": "The language model is worse than the baseline's by more than the declared margin.",
             "inconclusive": "Whether the language model is worse than the baseline's stays open."},
}
NOTHING_TO_VANISH = {
    "supported": "No expert of a further SPECTRA training is expected to collapse, but none of the baseline's does either: nothing could vanish.",
    "inconclusive": "No expert of either arm collapses in any training, so that nothing could vanish; of a further training these do not settle it."}
PLANTED = {
    "specialists": "SPECTRA's routing replaced by experts that keep to domains, its outputs by orthogonal ones, its loss by the baseline's; about a "
                   "quarter of the baseline's experts without a token",
    "permuted": "domain labels permuted over documents, anew for each seed; outputs of both arms replaced by those of two trainings of the "
                "baseline, drawn for each seed",
    "hash": "SPECTRA's routing replaced by a hash of the token type, which learns nothing",
    "worse": "about a quarter of the experts without a token, outputs that point one way, a loss four margins higher"}


def outcomes_of(view: View) -> dict[str, Outcome]:
    """Outcome of each part by its prefix; inconclusive where it was not judged."""
    return {claim.prefix: outcome_of(judged_of(view, claim)) if judged_of(view, claim) else "inconclusive" for claim in CLAIMS}


def holds(view: View, prefix: str) -> str:
    """One part of the claim in a sentence, by its outcome; of collapse, also that there was none to vanish."""
    outcome = outcomes_of(view)[prefix]
    judged = {one.criterion.name: one for one in view.content.finding.criteria}
    fewer, least = judged.get("collapse.fewer"), judged.get("collapse.least_load")
    if prefix == "collapse" and outcome == "inconclusive" and fewer and least and fewer.reason.startswith(UNTESTABLE):
        return NOTHING_TO_VANISH[least.outcome]
    return HOLDS[prefix][outcome]


def which_holds(view: View) -> str:
    """Which part of the claim holds, in four sentences."""
    return " ".join(holds(view, claim.prefix) for claim in CLAIMS)


def overview(view: View) -> Section:
    """Four sentences and four rows."""
    finding, blocks = view.content.finding, list[Block]()
    if finding.verdict is None:
        blocks.append(Paragraph("The controls failed, so that what follows is no verdict.", "warning"))
    blocks.append(Paragraph(which_holds(view), "lead"))
    blocks.append(Paragraph("Orthogonal experts, experts that keep to domains, even loads and a good language model are four things; each is judged "
                            "for "
                            "itself, and one does not stand for another."))
    return Section("claims", "Which part of the claim holds", [*blocks, overview_table(view, CLAIMS, "The four parts of the claim")], "overview")


def caveats(view: View) -> Section:
    """What a reader of any number here has to know: seeds, confounding, what a domain is, what could not be measured."""
    blocks: list[Block] = [Paragraph(f"{one[0].upper()}{one[1:]}.", "warning") for one in map(str, view.facts.get("caveats", ())) if one]
    flaws = dict.fromkeys(one.reason for one in view.content.finding.criteria if one.reason.startswith(FLAWED))
    blocks += [Paragraph(f"No criterion is decided, whatever its interval: {reason}.", "warning") for reason in flaws]
    for one in view.content.finding.criteria:
        if one.estimate.value is None:
            blocks.append(Paragraph(f"{one.criterion.name} is undefined: {one.estimate.reason}.", "note"))
        elif one.estimate.gate:
            blocks.append(Paragraph(f"No verdict rests on {one.criterion.name}: {one.estimate.gate}.", "note"))
    counts = ", ".join(f"{name} {n}" for name, n in view.facts.get("n_documents_per_domain", {}).items())
    seeds = ", ".join(f"{name} {len(of_arm)}" for name, of_arm in view.facts.get("seeds", {}).items())
    blocks.append(Paragraph(f"Test documents: {counts or 'not recorded'}. Training seeds: {seeds or 'none'}. Of a method only training seeds speak; "
                            f"of two "
                            "checkpoints, documents. Both levels are in the tables."))
    return Section("caveats", "Read first", blocks, "caveats")


def seed_panel(view: View) -> Section:
    """The seed's table as the seed would read it."""
    seed = view.content.finding.seed_verdict
    blocks: list[Block] = [Paragraph(str(seed.get("words", "The seed's rule was not applied.")) + ".", "lead")]
    if seed.get("reason"):
        blocks.append(Paragraph(f"Undefined: {seed['reason']}."))
    rows: list[list[Cell]] = [["better" if line["passed"] else "not better", line["text"]] for line in seed.get("lines", ())]
    if rows:
        blocks.append(Table("seed_rule", "The seed's rows in its own forms, on these data", [Column("SPECTRA is"), Column("row")], rows,
                            "Better: in the seed's direction with p < .01 of its unpaired t test over training seeds."))
    blocks.append(Paragraph(
        "Numbers and p here are the seed's own forms, which the results table corrects: affinity and purity are picked and counted on the same "
        "documents, a silhouette above 0 is partly built into linear routers, NMI of indicators depends on loads alone, and confidence over the "
        "chosen k experts lies between 1/k and 1 by construction. The seed takes its t test over bootstrap replicates, whose p falls to 0 with "
        "their number whatever the methods; it is taken over training seeds here. Its expected ranges are guesses made before any measurement: "
        "they are shown and never used as thresholds. We pair training seeds, compare intervals, and judge information between expert and domain.",
        "note"))
    return Section("seed-panel", "The seed's own verdict", blocks, "seed")
