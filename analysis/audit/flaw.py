"""A flaw of a trace: what is wrong, how much of the trace it touches, what it does to numbers, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["invalidating", "warning", "note"]

FAMILIES = ("loads", "slots", "layers", "sequence", "domains", "router_entropy", "types", "intervals")  # what a flaw can spoil
EVERYTHING = FAMILIES
DEPENDENT = 0.05  # share of documents that are no observations of their own: standard errors are too small by 2.5 %
FRAME_ROWS = 0.1  # share of special tokens: a text has a begin and an end, so documents are of 20 tokens or the template is no small part of them
MOST_ROWS = 0.5  # share of one type, from which on an average over occurrences is more this type's than that of all others together
ALIKE_ROWS = 0.1  # share of a domain's rows in beginnings that its documents share: more than what they themselves vary by
SHOWN = 6  # places that are named; more are counted


@dataclass(frozen=True)
class Kind:
    """What one code means.

    invalidates: families of FAMILIES whose numbers are wrong, or whose intervals are, while the flaw is there; material: share below which
    they are not wrong enough for a verdict to be withheld.
    """

    title: str
    consequence: str
    remedy: str
    invalidates: tuple[str, ...] = ()
    severity: Severity = "warning"
    material: float = 0.0


@dataclass(frozen=True)
class Flaw:
    """One finding of the audit.

    count of `of` are touched, in `unit` (rows, documents, layers, ...); share: count / of, in [0, 1]; where: some of the places;
    words: what was seen, with its numbers; consequence, remedy, invalidates, severity: of the code (CODES).
    """

    code: str
    count: int
    of: int
    unit: str
    share: float
    where: tuple[str, ...]
    words: str
    consequence: str
    remedy: str
    invalidates: tuple[str, ...]
    severity: Severity

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"code": self.code, "count": self.count, "of": self.of, "unit": self.unit, "share": self.share, "where": list(self.where),
                "words": self.words, "consequence": self.consequence, "remedy": self.remedy, "invalidates": list(self.invalidates),
                "severity": self.severity}


def flaw(code: str, count: int, of: int, unit: str, words: str, where: Iterable[str] = ()) -> Flaw:
    """The finding `code` of CODES; below its `material` share it is a warning. KeyError for a code that is not there."""
    kind, share = CODES[code], float(count / of) if of else 0.0
    slight = bool(kind.invalidates) and share < kind.material
    return Flaw(code, int(count), int(of), unit, share, places(tuple(where)), words, kind.consequence, kind.remedy,
                () if slight else kind.invalidates, "warning" if slight else kind.severity)


def places(every: Sequence[str]) -> tuple[str, ...]:
    """The first places, and how many more there are."""
    return tuple(every[:SHOWN]) + ((f"{len(every) - SHOWN} more",) if len(every) > SHOWN else ())


CODES: dict[str, Kind] = {
    "padding": Kind(
        "padding has rows", "padding is routed like one token type: loads, entropies and frequencies are partly those of the pad",
        "keep the attention mask and drop its rows when collecting, or drop the named type", EVERYTHING, "invalidating"),
    "special_tokens": Kind(
        "special tokens have rows", "begin, end and template tokens route alike in every document and look like agreement between documents",
        "drop the rows of the tokenizer's special ids, and say how many they were", ("loads", "sequence", "domains", "types"), "invalidating",
        FRAME_ROWS),
    "one_type_dominates": Kind(
        "one token type carries much of the trace", "averages over occurrences are those of this type",
        "find out what the type is; leave it out if it is padding or a separator, or weigh types alike",
        ("loads", "layers", "sequence", "domains", "router_entropy", "types"), "invalidating", MOST_ROWS),
    "missing_entropies": Kind(
        "router entropies are missing", "means over the rest are means of another population: whole token types may be absent",
        "collect the layer again in float32, or leave the named layers out", ("router_entropy",), "invalidating"),
    "counted_twice": Kind(
        "documents are there twice", "estimates stay and their standard errors shrink by up to sqrt 2: what is no evidence looks like some",
        "keep one copy of each document", ("intervals",), "invalidating", DEPENDENT),
    "repeated_rows": Kind(
        "blocks of rows are there again", "the tokens of the block count twice, in their own documents or in others",
        "re-cut the documents without overlap; do not count a pass that was tried again", EVERYTHING, "invalidating", 0.02),
    "common_factor": Kind(
        "counts have a common factor", "every token was counted that many times: tests and standard errors take it for more data",
        "divide by the factor, after finding out which pass or operation was counted again", ("intervals",), "invalidating"),
    "warm_up": Kind(
        "warm-up or constant traffic was counted", "entropies of loads fall and some experts look hot: rows of dummy tokens are in the sums",
        "drop the named rows; start to record after the first real request", EVERYTHING, "invalidating"),
    "duplicate_keys": Kind(
        "one (document, token) has several rows", "tokens count more than once, and lags between tokens are wrong at these places",
        "keep one row per document, position, layer and slot", EVERYTHING, "invalidating"),
    "repeated_operations": Kind(
        "each decision has several rows", "gate, up and down of one layer repeat one decision: counts are multiples and look like more data",
        "collapse the operations of a layer to one row per token", EVERYTHING, "invalidating"),
    "repeated_layers": Kind(
        "layers are copies of each other", "what couples these layers is the copy: mutual information between them is their entropy",
        "keep one layer of each group; gate, up and down of a block are one router", ("layers",), "invalidating"),
    "unsorted_slots": Kind(
        "slots are not in the order of their weights", "slot 0 is not the first choice: whatever rests on first choices is wrong",
        "sort ids and weights of each row by falling weight", ("slots", "layers", "sequence"), "invalidating", 0.001),
    "slot_order_unknown": Kind(
        "the order of slots cannot be checked", "without weights nothing shows that slot 0 is the first choice",
        "record the weights; accept the finding where the source is known to write its choices by falling score", ("slots",), "invalidating"),
    "slots_by_id": Kind(
        "slots are in the order of expert ids", "a set was kept and no order: slot 0 is an id, not the first choice, and whatever rests on first "
        "choices is wrong", "record the choices by falling weight, or the weights with them", ("slots", "layers", "sequence"), "invalidating"),
    "ids_beyond_range": Kind(
        "expert ids beyond the layer's experts", "ids are off by one, of another model, or physical: no count can be trusted",
        "correct n_experts, or map ids to the model's own experts", EVERYTHING, "invalidating"),
    "repeated_choice": Kind(
        "one expert twice in one top-k", "rows were filled in, not routed (zero-filled buffers, stale slots)",
        "drop the rows or layers that the engine did not route", EVERYTHING, "invalidating"),
    "physical_ids": Kind(
        "experts that look like replicas of one another", "ids are physical: an expert with replicas is counted as several",
        "map physical to logical experts before counting", EVERYTHING, "invalidating"),
    "dense_layers": Kind(
        "layers that always choose the same experts", "a layer without a router was read as expert 0 (or a router has collapsed): its zero entropy "
        "and its loads enter every mean over layers", "leave the named layers out of the layer table", EVERYTHING, "invalidating"),
    "tokens_missing": Kind(
        "tokens inside documents have no row", "neighbouring rows are no neighbours: repetition and lags are of other distances than they say",
        "collect with every token and without a prefix cache, or say in the meta which special tokens have no rows", ("sequence",), "invalidating"),
    "ends_missing": Kind(
        "first or last tokens of documents have no row", "what is there is not the whole document: prompts, first or last tokens are not described",
        "collect prompt and answer, and the row of the last token; or say so beside the numbers"),
    "weights_sum": Kind(
        "weights do not sum to what the meta says", "weights are of another kind than declared, or divided by another sum",
        "correct weights_mean, or collect the weights again", ("slots",), "invalidating"),
    "entropy_range": Kind(
        "entropies that no router of this size can have", "bits were read as nats, the sum ran over other experts, or the scores were no shares",
        "compute entropies of the full softmax in nats", ("router_entropy",), "invalidating"),
    "sums_disagree": Kind(
        "sums of counts disagree", "the denominator of every share is in doubt: selections and tokens were mixed, or a layer lost some",
        "count k selections per token in every layer", ("loads", "domains"), "invalidating"),
    "rank_paired": Kind(
        "pair tables join equal ranks only", "the r-th choice is paired with the r-th: neither first choices nor all pairs, so its information is "
        "of no decision", "count pairs of first choices, or of all slots", ("layers",), "invalidating"),
    "dependent_documents": Kind(
        "documents share a long beginning", "a cluster that shares a prompt is one observation: intervals over its documents are too narrow",
        "take one document of each cluster, or name the cluster as the document", ("intervals",), "invalidating", DEPENDENT),
    "documents_not_texts": Kind(
        "documents are no texts", "neighbouring rows need not be of one text, and one text may be in several documents: neither lags nor intervals "
        "over documents mean what they say", "record which text each token is of, and name the texts as documents", ("sequence", "intervals"),
        "invalidating"),
    "shared_prefix": Kind(
        "documents begin alike", "the rows of a template are alike in every document: they look like agreement between documents, and like a "
        "difference between domains that have other templates", "leave the template's rows out (--leave-out-first N), or show results with and "
        "without them",
        ("domains", "intervals"), "invalidating", ALIKE_ROWS),
    "few_documents": Kind(
        "few independent documents", "intervals and tests over documents have little to stand on", "collect more documents", (), "note"),
    "mixed_runs": Kind(
        "the trace changes on its way", "rows are of two models, settings or engines: a mean over both is of neither",
        "split the trace where it changes, and read each part alone", EVERYTHING, "invalidating"),
    "differing_meta": Kind(
        "parts with different meta", "two models, tokenizers or settings were read as one trace", "read each part alone", EVERYTHING, "invalidating"),
    "first_token_sinks": Kind(
        "first tokens act as sinks", "first tokens go to experts of their own whatever the text: short documents look specialised",
        "leave the first tokens out, or show results with and without them"),
    "small_sample": Kind(
        "few selections for the experts", "entropy and Gini are mostly bias: uniform routing of as many selections looks nearly the same",
        "compare with the uniform null, rarefy to equal numbers, or collect more"),
}
