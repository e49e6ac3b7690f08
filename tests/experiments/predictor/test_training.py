import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from analysis.estimation import Groups, estimates
from analysis.metrics.prediction import prediction_counts
from analysis.planes import Planes
from experiments.predictor.curve import Epoch
from experiments.predictor.predict import predict
from experiments.predictor.recipe import RECORD, WEIGHTS, PredictorError, record_of
from experiments.predictor.training import open_predictor, rate, train
from experiments.progress import Silent
from tracking.atomic import ContentError

from .planted import KEPT, SMALL, planted_trace, source_planes

ROOT = Path(__file__).resolve().parents[3]
CHILD = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, {root!r})
from experiments.predictor.training import train
from tests.experiments.predictor.planted import SMALL, planted_trace, source_planes


class Deadly:
    '''Progress that kills its own process in the fourth epoch.'''

    @contextmanager
    def stage(self, name, total=None, unit=""):
        self.done, self.limit = 0, total * 3.5 / SMALL.epochs
        yield self

    def advance(self, n=1):
        self.done += n
        if self.done >= self.limit:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, text):
        pass


train(source_planes(planted_trace(n_documents=60)), SMALL, Path(sys.argv[1]), Deadly())
"""


@pytest.fixture(scope="module")
def chained() -> Planes:
    return source_planes(planted_trace(n_documents=60))


@pytest.fixture(scope="module")
def predictor(chained: Planes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(chained, SMALL, tmp_path_factory.mktemp("prophet") / "predictor", Silent())


def accuracy(directory: Path, planes: Planes) -> np.ndarray:
    return np.array([(first == ids[0]).mean() for first, ids in zip(predict(directory, planes).first, planes.ids)])


def test_a_planted_chain_is_learnt_and_predicted_in_documents_never_seen(predictor: Path) -> None:
    test = source_planes(planted_trace(n_documents=60), split="test")
    right = accuracy(predictor, test)
    most = KEPT + (1 - KEPT) / 8
    assert (right[1:] > most - 0.1).all() and (right[1:] < most + 0.04).all()
    modal = [np.bincount(ids[0]).max() / len(test) for ids in test.ids]
    assert (right[1:] > np.array(modal[1:]) + 0.4).all()
    assert right[0] < modal[0] + 0.03  # the first layer was drawn uniformly: there is nothing to know


def test_without_cross_layer_attention_the_chain_is_out_of_sight(chained: Planes, tmp_path: Path) -> None:
    directory = train(chained, SMALL.ablated().model_copy(update={"epochs": 3}), tmp_path / "predictor", Silent())
    assert (accuracy(directory, source_planes(planted_trace(n_documents=60), split="test")) < 0.3).all()


def test_independent_layers_give_no_information(tmp_path: Path) -> None:
    trace = planted_trace(5, chained=False, n_documents=80)
    directory = train(source_planes(trace), SMALL.model_copy(update={"epochs": 3}), tmp_path / "predictor", Silent())
    test = source_planes(trace, split="test")
    group = np.repeat(np.arange(len(test.document)), test.lengths)
    for layer, first, ids in zip(test.layers, predict(directory, test).first, test.ids):
        joint = prediction_counts(first.astype(int), ids[0].astype(int), layer.n_experts, group)
        mi = estimates("predictor_mi", Groups((joint,), len(test.document))).item()
        assert abs(mi.value) < 0.04 and mi.low < 0.01


def test_the_record_says_how_it_was_learnt(predictor: Path, chained: Planes) -> None:
    record = record_of(predictor)
    assert {path.name for path in predictor.iterdir()} == {"recipe.json", RECORD, WEIGHTS}
    assert record["documents"] == {"learnt": 13, "held_out": 2} and record["tokens"] == len(chained)
    curve = record["curve"]
    assert curve["epoch"] == [epoch for epoch in range(1, SMALL.epochs + 1) for _ in range(3)]
    assert curve["nats"][0] > curve["nats"][-1] > 0 and curve["held_out_nats"][0] > curve["held_out_nats"][-1]
    assert curve["mi"][-1] > 1.2 and curve["mi_low"][-1] < curve["mi"][-1] < curve["mi_high"][-1] and curve["accuracy"][-1] > 0.7


def test_the_curve_is_measured_on_the_held_out_documents(predictor: Path, chained: Planes) -> None:
    place = int(chained.starts[-3])  # the last two documents
    right = [(first[place:] == ids[0][place:]).mean() for first, ids in zip(predict(predictor, chained).first, chained.ids)]
    assert record_of(predictor)["curve"]["accuracy"][-3:] == pytest.approx(right, abs=0.02)


def test_killed_and_resumed_it_has_the_bits_of_an_undisturbed_run(predictor: Path, chained: Planes, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD.format(root=str(ROOT)), str(tmp_path / "predictor")], capture_output=True, check=False,
                          env=os.environ | {"OMP_NUM_THREADS": "2"})
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    state = tmp_path / "predictor" / "resume.safetensors"
    assert state.exists() and not (tmp_path / "predictor" / RECORD).exists()
    with pytest.raises(PredictorError, match="no finished predictor"):
        open_predictor(tmp_path / "predictor")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "recipe.json").write_bytes((tmp_path / "predictor" / "recipe.json").read_bytes())
    (damaged / "resume.safetensors").write_bytes(state.read_bytes()[:-1000])
    for directory in (tmp_path / "predictor", damaged):  # goes on after the third epoch; starts over
        train(chained, SMALL, directory, Silent())
        for name in (WEIGHTS, RECORD):
            assert (directory / name).read_bytes() == (predictor / name).read_bytes()


def test_a_finished_directory_is_reused(predictor: Path, chained: Planes) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in predictor.iterdir()}
    assert train(chained, SMALL.model_copy(update={"processes": 2, "device": "auto"}), predictor, Silent()) == predictor
    assert {path.name: path.stat().st_mtime_ns for path in predictor.iterdir()} == before


def test_another_recipe_in_the_same_directory_is_refused(predictor: Path, chained: Planes, tmp_path: Path) -> None:
    with pytest.raises(PredictorError, match=r"another recipe \(seed: 0 there, 4 asked\)"):
        train(chained, SMALL.model_copy(update={"seed": 4}), predictor, Silent())
    with pytest.raises(PredictorError, match=r"another recipe \(documents: "):
        train(source_planes(planted_trace(n_documents=60), "news"), SMALL, predictor, Silent())
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(PredictorError, match=r"holds files but no recipe\.json"):
        train(chained, SMALL, tmp_path, Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_is_noticed(predictor: Path, chained: Planes, tmp_path: Path) -> None:
    for path in predictor.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = bytearray((tmp_path / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(PredictorError, match="not the weights that predictor.json names; delete"):
        predict(tmp_path, chained)
    (tmp_path / RECORD).write_bytes((tmp_path / RECORD).read_bytes().replace(b'"parameters"', b'"parameterz"'))
    with pytest.raises(ContentError, match="delete the directory and train again"):
        predict(tmp_path, chained)
    (tmp_path / "recipe.json").write_text("[")
    with pytest.raises(PredictorError, match="not a recipe"):
        train(chained, SMALL, tmp_path, Silent())


@pytest.mark.parametrize(("layers", "message"), [
    (((8, 2), (8, 2), (7, 3)), "n_experts 6 when trained, 7 in the trace"), (((8, 2), (8, 1), (6, 3)), "top_k 2 when trained, 1 in the trace"),
    (((8, 2), (8, 2)), "trained on 3 layers, applied to 2"),
])
def test_only_a_trace_of_the_same_layers_can_be_predicted(predictor: Path, layers: tuple, message: str) -> None:
    other = source_planes(planted_trace(9, layers=layers, domains=("other", "law")), "other")
    with pytest.raises(PredictorError, match=message):
        predict(predictor, other)


def test_another_trace_of_the_same_layers_is_predicted(predictor: Path) -> None:
    other = source_planes(planted_trace(9, domains=("other", "law"), n_documents=8), "law", "test")
    found = predict(predictor, other)
    assert all(ids.shape == (layer.top_k, len(other)) and ids.dtype == layer.id_dtype for ids, layer in zip(found.sets, other.layers))
    assert (accuracy(predictor, other)[1:] > 0.7).all()


def test_the_weights_do_not_depend_on_the_threads_of_the_machine_nor_on_its_random_state(chained: Planes, tmp_path: Path) -> None:
    short = SMALL.model_copy(update={"epochs": 1})
    train(chained, short, tmp_path / "one", Silent())
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.manual_seed(77)
    want = torch.rand(1)
    torch.manual_seed(77)
    try:
        train(chained, short, tmp_path / "three", Silent())
        assert torch.get_num_threads() == 3 and torch.equal(torch.rand(1), want)
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "one" / WEIGHTS).read_bytes() == (tmp_path / "three" / WEIGHTS).read_bytes()
    seeded = load_file(train(chained, short.model_copy(update={"seed": 1}), tmp_path / "seeded", Silent()) / WEIGHTS)
    assert not torch.equal(seeded["norm.weight"], load_file(tmp_path / "one" / WEIGHTS)["norm.weight"])


def test_one_document_has_no_held_out_curve_and_says_so(tmp_path: Path) -> None:
    trace = planted_trace(n_documents=4)
    one = source_planes(trace)
    assert len(one.document) == 1
    record = record_of(train(one, SMALL.model_copy(update={"epochs": 2}), tmp_path / "predictor", Silent()))
    assert record["documents"] == {"learnt": 1, "held_out": 0}
    assert record["curve_reason"].startswith("no_data: the source has one document")
    assert set(record["curve"]["mi"]) == {None} and set(record["curve"]["held_out_nats"]) == {None}
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("layers", [((4, 1),), ((2, 2), (300, 4)), ((1, 1), (4, 2))])
def test_one_layer_k_of_one_and_of_all_and_many_experts(layers: tuple, tmp_path: Path) -> None:
    trace = planted_trace(n_documents=8, layers=layers, chained=False)
    source = source_planes(trace)
    for name, spec in (("whole", SMALL), ("ablated", SMALL.ablated())):
        directory = train(source, spec.model_copy(update={"epochs": 1}), tmp_path / name, Silent())
        for ids, (n_experts, k) in zip(predict(directory, source).sets, layers):
            assert ids.shape[0] == k and (ids < n_experts).all()
            assert all(len(set(column)) == k for column in ids.T.tolist())


def test_no_token_is_refused(chained: Planes, tmp_path: Path) -> None:
    empty = Planes(chained.layers, tuple(ids[:, :0] for ids in chained.ids), None, chained.position[:0], np.zeros(1, np.int64), chained.document[:0])
    with pytest.raises(PredictorError, match="no token to learn from"):
        train(empty, SMALL, tmp_path / "predictor", Silent())


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate(step, 100, 2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9:40] == [2.0] * 31 and rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[9:], rates[10:]))
    assert rate(0, 1, 2.0) == pytest.approx(0.1)


def test_an_epoch_survives_a_checkpoint() -> None:
    epoch = Epoch(1.5, float("nan"), ((1.0, 2.0, 3.0, 4.0, 5.0), (6.0, 7.0, 8.0, 9.0, float("nan"))))
    assert repr(Epoch.of(json.loads(json.dumps(epoch.numbers)))) == repr(epoch)
