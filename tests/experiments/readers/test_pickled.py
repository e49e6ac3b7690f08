"""Pickled traces of the seeds and OLMoE's pickled counts, with every number by hand; what attacks is refused and leaves nothing."""

from __future__ import annotations

import pickle  # noqa: TID251 - writes what is refused
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import readers
from experiments.readers import ReadError, ReadOptions
from tests.attacks.pickles import by_global, laughs
from tests.experiments.readers import foreign_captures as made
from tests.experiments.readers.foreign_files import SHARED


def read(path: Path, **options: Any) -> Any:
    return readers.recognise(path).read(path, ReadOptions(**options))


@pytest.mark.parametrize("write", [made.pickle_dicts, made.pickle_points])
def test_a_record_per_layer_of_a_sample(write: Any, tmp_path: Path) -> None:
    trace = read(write(tmp_path))
    assert [(row.id, row.domain) for row in trace.documents] == [("imdb_0", "imdb"), ("cnn_dailymail_7", "cnn_dailymail")]
    assert [(layer.depth, layer.n_experts, layer.top_k) for layer in trace.meta.layers] == [(1, 4, 1), (3, 4, 1)]
    ((_, batch),) = trace.batches()
    assert batch.document.tolist() == [0, 0, 1] and batch.position.tolist() == [0, 1, 0]
    for index, layer in enumerate((1, 3)):
        assert batch.ids[index].ravel().tolist() == made.CHOSEN[layer]
        np.testing.assert_allclose(batch.entropy_nats[index], made.ENTROPY[layer], atol=1e-6)
        np.testing.assert_allclose(batch.simpson[index], made.SIMPSON[layer], atol=1e-6)
    assert batch.top1_prob.tolist() == [[0.5, 0.5, 0.5], [1.0, 0.25, 0.5]]
    assert batch.weights[0].ravel().tolist() == [0.5, 0.5, 0.5] and batch.weights[0].dtype == np.float16
    assert trace.meta.entropy_of == "softmax_logits" and trace.meta.score_function == "softmax"


def test_token_ids_and_padding_of_data_points(tmp_path: Path) -> None:
    trace = read(made.pickle_points(tmp_path))
    ((_, batch),) = trace.batches()
    assert batch.token_id.tolist() == [11, 12, 9] and trace.meta.vocabulary_size == 13
    assert {one.code: one.count for one in trace.remarks} == {"padding_left_out": 8}  # two rows in each of four records
    ((_, plain),) = read(made.pickled(tmp_path / "plain.pkl", made.seed_records())).batches()
    assert plain.token_id is None


def test_samples_without_every_layer_and_repeats_are_counted(tmp_path: Path) -> None:
    records = made.seed_records()
    other = {**records[0], "sample_id": "synthetic_4", "layer_id": 2}
    trace = read(made.pickled(tmp_path / "a.pkl", [*records, other, records[1]]))
    assert [row.id for row in trace.documents] == ["imdb_0", "cnn_dailymail_7"]
    assert {one.code: one.count for one in trace.remarks} == {"documents_of_other_layers": 1, "duplicate_records": 1}


def changed(**changes: Any) -> list[Any]:
    records = made.seed_records()
    records[0] = {**records[0], **changes}
    return [{key: value for key, value in one.items() if value is not None} for one in records]


HALF = np.array([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.5, 0.0]])


@pytest.mark.parametrize(("changes", "words"), [
    ({"sample_id": None}, "record 0: field sample_id: absent"), ({"layer_id": 3}, "field layer_id: 3, but sample_id is 'imdb_0_layer_1'"),
    ({"layer_id": "1"}, "expected a number"), ({"target_routing": [[1.0]]}, "field target_routing: list"),
    ({"target_routing": HALF.astype(int)}, "field target_routing: int64"),
    ({"target_routing": HALF[:1]}, "target_top_k: 2 rows, but target_routing has 1"),
    ({"sequence_length": 5}, "sequence_length: 5, but there are 2 rows"),
    ({"target_routing": HALF * 2}, "token 0, layer 1: field target_routing.*sum to 2"),
    ({"target_routing": HALF * np.nan}, "sum to nan"), ({"target_routing": HALF - [[0.3, -0.3, 0, 0]] * 2}, "least -0.05"),
    ({"target_top_k": np.array([[0], [4]])}, "token 1.*expert id 4.*off by one"), ({"target_top_k": np.array([[3], [2]])}, "has probability 0.125"),
    ({"token_ids": np.array([1])}, "field token_ids: 1 ids for 2 tokens"),
    ({"target_routing": HALF[:, :3] / HALF[:, :3].sum(axis=1, keepdims=True), "target_top_k": np.array([[0], [2]])}, r"\(3, 1\), \(4, 1\)"),
    ({"target_routing": HALF[:1], "target_top_k": np.array([[0]]), "sequence_length": 1}, "has 1, 2 rows in its layers"),
])
def test_wrong_records_are_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = made.pickled(tmp_path / "a.pkl", changed(**changes))
    with pytest.raises(ReadError, match=words) as met:
        list(readers.find("pickled").read(path, ReadOptions()).batches())  # type: ignore[union-attr]
    assert str(path) in str(met.value)


def test_one_layer_of_a_sample_twice_with_other_routing(tmp_path: Path) -> None:
    records = made.seed_records()
    path = made.pickled(tmp_path / "a.pkl", [*records, {**records[0], "target_top_k": records[0]["target_top_k"][::-1]}])
    with pytest.raises(ReadError, match="record 4: layer 1 of sample 'imdb_0' is there twice"):
        read(path)


@pytest.mark.parametrize(("make", "words"), [(lambda canary: by_global("os", "system", canary), "'os.system'"), (laughs, "nested deeper")])
def test_an_attack_is_refused_by_name(make: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "robust_traces.pkl").write_bytes(make(tmp_path / "canary"))
    for name in ("pickled", "olmoe-pickles"):
        with pytest.raises(ReadError, match=words):
            readers.find(name).read(tmp_path / "robust_traces.pkl", ReadOptions(n_experts=4, top_k=2))
    assert not (tmp_path / "canary").exists()


def test_recognition_runs_nothing(tmp_path: Path) -> None:
    """An attack that names the fields of a record is recognised as one, and refused when read."""
    fields = "".join(f"{one} " for one in ("layer_id", "target_routing", "target_top_k", "sample_id"))
    attack = by_global("os", "system", tmp_path / f"canary' {fields}'")
    (tmp_path / "a.pkl").write_bytes(attack)
    assert readers.recognise(tmp_path / "a.pkl") is readers.find("pickled")
    assert [one.name for one in tmp_path.iterdir()] == ["a.pkl"]


def test_counts_of_a_folder_by_hand(tmp_path: Path) -> None:
    """Of c4, layer 0: choices (0, 1), (2, 3), (0, 3), so expert 0 twice, 1 once, 2 once, 3 twice; first choices 0, 2, 0."""
    found = read(made.olmoe_pickles(tmp_path), n_experts=4)
    assert found.domains == ("c4", "code") and [layer.depth for layer in found.meta.layers] == [0, 7, 15]
    assert found.counts[0].tolist() == [[2, 1, 1, 2], [1, 1, 2, 2]] and found.first[0].tolist() == [[2, 0, 1, 0], [0, 1, 0, 2]]
    assert found.meta.layers[0].top_k == 2 and found.tokens.tolist() == [3, 3]
    assert found.pairs_first and sorted(found.pairs) == [(0, 1), (1, 2)]
    pairs = found.pairs[0, 1][0]  # c4: first choices 0, 2, 0 and then 1, 1, 3
    assert pairs[0].tolist() == [0, 1, 0, 1] and pairs[2].tolist() == [0, 1, 0, 0] and int(pairs.sum()) == 3
    rows = {tuple(row[:3]): row[3] for row in found.types[0].tolist()}
    assert rows[0, 0, 5] == 2 and rows[0, 3, 6] == 1 and rows[1, 3, 7] == 2 and found.meta.vocabulary_size == 9
    assert sum(int(rows[:, 3].sum()) for rows in found.types) == 36  # 2 domains x 3 layers x 3 tokens x 2


def test_without_first_choices_top_k_is_asked_for_and_pairs_are_of_equal_ranks(tmp_path: Path) -> None:
    path = made.olmoe_pickles(tmp_path, first=False)
    with pytest.raises(ReadError, match="--top-k"):
        read(path, n_experts=4)
    with pytest.raises(ReadError, match="highest id 3"):
        read(path, top_k=2)
    found = read(path, n_experts=4, top_k=2)
    assert not found.pairs_first and int(found.pairs[0, 1][0].sum()) == 6 and [one.code for one in found.remarks] == ["equal_rank_pairs"]
    one = read(path / "expert_counts" / "code.pkl", n_experts=4, top_k=2)
    assert one.domains == ("code",) and one.counts[0].tolist() == [[1, 1, 2, 2]]


def test_counts_beyond_two_to_the_31_are_kept(tmp_path: Path) -> None:
    path = made.olmoe_pickles(tmp_path, first=False, siblings=False)
    for domain in ("c4", "code"):
        (path / "expert_counts" / f"{domain}.pkl").write_bytes(pickle.dumps([Counter({0: 3 * 2**40, 3: 2**40})] * 3))
    found = read(path, n_experts=4, top_k=2)
    assert found.counts[1].tolist() == [[3 * 2**40, 0, 0, 2**40]] * 2 and found.tokens.tolist() == [2**41, 2**41]


@pytest.mark.parametrize(("kind", "content", "words"), [
    ("expert_counts", [{0: 6}], "list of 3 Counters"), ("expert_counts", [{0: -6}] * 3, "ids and a count"),
    ("expert_counts", [{4: 6}] * 3, "off by one"), ("expert_counts", [{0: 2**52, 1: 2**52}] * 3, "which no recording holds"),
    ("expert_counts", [{"0": 6}] * 3, "ids and a count"), ("expert_counts", [{0: 7}] * 3, "different runs"),
    ("expert_counts_crosslayer_top1", [{(0, 1): 3}] * 2, "do not sum to the counts"), ("eid2token", [{0: {5: 7}}] * 3, "different runs"),
    ("eid2token", [{9: {5: 6}}] * 3, "one of 4 experts"),
])
def test_counts_that_do_not_belong_together(kind: str, content: Any, words: str, tmp_path: Path) -> None:
    path = made.olmoe_pickles(tmp_path)
    (path / kind / "c4.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ReadError, match=words):
        readers.find("olmoe-pickles").read(path, ReadOptions(n_experts=4, top_k=2))


def test_the_real_counts_of_olmoe_come_back_from_pickles(tmp_path: Path) -> None:
    """Tables of the paper's run as the script's Counters: rows and columns of pairs sum to the first choices, all choices to tokens x 8."""
    source = SHARED / "allenai__OLMoE" / "olmoe_counts.npz"
    if not source.exists():
        pytest.skip(f"{source} is not there: real traces live beside the clone, not in it")
    with np.load(source, allow_pickle=False) as tables:
        for kind in ("expert_counts", "expert_counts_top1", "expert_counts_crosslayer", "expert_counts_crosslayer_top1"):
            (tmp_path / kind).mkdir()
            content = [Counter({tuple(map(np.int64, at)) if len(at) > 1 else np.int64(at[0]): int(table[tuple(at)]) for at in np.argwhere(table)})
                       for table in tables[f"{kind}__github"]]
            (tmp_path / kind / "github.pkl").write_bytes(pickle.dumps(content))
        found = read(tmp_path, n_experts=64)
        assert found.meta.layers[0].top_k == int(tables["top_k"]) and found.tokens.tolist() == [int(tables["tokens"])]
        for index in range(3):
            np.testing.assert_array_equal(found.counts[index][0], tables["expert_counts__github"][index])
            np.testing.assert_array_equal(found.first[index][0], tables["expert_counts_top1__github"][index])
        for index in range(2):
            np.testing.assert_array_equal(found.pairs[index, index + 1][0], tables["expert_counts_crosslayer_top1__github"][index])
