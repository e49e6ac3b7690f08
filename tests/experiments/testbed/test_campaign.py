import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.arm_runs import arm_runs, curve_rows, differences_of
from experiments.collection import routed_documents
from experiments.progress import Silent
from experiments.sources.huggingface import HuggingFaceSource
from experiments.specialization_features import run_of
from experiments.specialization_metrics import Features, compute_routing_confidence
from experiments.specs import SourceSpec
from experiments.stages.arm_sweep import measured
from experiments.testbed import material
from experiments.testbed.arm_collection import Wanted, collect_all, is_whole
from experiments.testbed.arm_training import compare_modes
from experiments.testbed.campaign import baseline_of, deal, plan, seeds_of, train_all
from experiments.testbed.campaign_spec import CampaignSpec, SpectraSpec
from experiments.testbed.material import stored
from experiments.testbed.routers.modeling import RoutedMixtralForCausalLM, routers_of
from hypotheses.spectra_evidence import SpectraSettings
from hypotheses.spectra_facts import EQUATIONS
from hypotheses.spectra_runs import UNSCORED, RunCounts

from .small_corpus import SMALL, small_corpus

SPEC = SMALL.model_copy(update={"steps": 60})
SPECTRA = SpectraSpec(dimension=4)
CAMPAIGN = CampaignSpec(seeds=1, beside=("hash",), processes=1, sample_tokens=200, probe_documents=3, probe_tokens=20)
CHILD = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/tests/experiments/testbed"]
from pathlib import Path
from small_corpus import SMALL, small_corpus
from experiments.progress import Silent
from experiments.testbed.arm_training import compare_modes
from experiments.testbed.campaign import train_all
from experiments.testbed.campaign_spec import CampaignSpec, SpectraSpec

if __name__ == "__main__":
    spec = SMALL.model_copy(update={{"steps": 60}})
    campaign = CampaignSpec(seeds=1, beside={beside!r}, processes={processes}, arms={arms!r})
    train_all(campaign, spec, SpectraSpec(dimension=4), small_corpus(), Path(sys.argv[1]), Silent())
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    train_all(CAMPAIGN, SPEC, SPECTRA, small_corpus(), directory, Silent())
    return directory


@pytest.fixture(scope="module")
def collected(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory, corpus = tmp_path_factory.mktemp("arms"), small_corpus()
    trained = train_all(CAMPAIGN, SPEC, SPECTRA, corpus, cache, Silent())
    source = HuggingFaceSource.open(SourceSpec(model=str(baseline_of(trained).directory), max_length=48), Silent())
    wanted = Wanted(SourceSpec(max_length=48, batch_size=4), CAMPAIGN, routed_documents(corpus, source), directory)
    collect_all(trained, wanted, Silent())
    return directory


def weights_of(cache: Path, arm: str) -> dict[str, torch.Tensor]:
    found = list(cache.glob(f"{arm}-*/model.safetensors"))
    assert len(found) == 1, found
    return load_file(found[0])


def test_seeds_follow_the_experiments_seed() -> None:
    assert seeds_of(CampaignSpec(seeds=3, seeds_beside=1), 7) == {"switch_top2": (7, 8, 9), "spectra": (7, 8, 9), "hash": (7,), "random": (7,)}


def test_trainings_share_everything_but_router_seed_and_width(tmp_path: Path) -> None:
    prepared = stored(SPEC, small_corpus(), tmp_path, Silent())
    every = plan(CampaignSpec(seeds=2), SPEC, SPECTRA, prepared, "corpus")
    assert [(one.arm, one.spec.seed) for one in every] == [("switch_top2", 3), ("switch_top2", 4), ("spectra", 3), ("spectra", 4), ("hash", 3),
                                                           ("random", 3)]
    alike = {json.dumps(one.spec.model_copy(update={"seed": 0, "intermediate": 4}).model_dump()) for one in every}
    assert len(alike) == 1
    assert len({one.name for one in every}) == len(every)
    shares = deal(every, 2)
    assert sorted(one.name for share in shares for one in share) == sorted(one.name for one in every)
    assert [sum(one.arm == "spectra" for one in share) for share in shares] == [1, 1]


def test_a_finished_campaign_is_found_and_nothing_is_trained(cache: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    trained = train_all(CAMPAIGN, SPEC, SPECTRA, small_corpus(), cache, Silent())
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()} == before
    assert [(one.arm, one.seed) for one in trained] == [("switch_top2", 3), ("spectra", 3), ("hash", 3)]


def test_a_training_says_what_came_of_it(cache: Path) -> None:
    about = {path.parent.name.rsplit("-", 1)[0]: json.loads(path.read_text()) for path in cache.glob("*/training.json")}
    assert set(about) == {"switch_top2", "spectra", "hash"}
    assert {one["data_order"] for one in about.values()} == {about["spectra"]["data_order"]}
    assert {one["tokens_seen"] for one in about.values()} == {60 * 6 * 32}
    for one in about.values():
        assert one["held_out_nats"] < one["losses"][0][1]
        assert all(len(row) == len(one["columns"]) for row in one["losses"])
        assert one["cpu_seconds"] > 0
    assert about["spectra"]["columns"] == ["step", "loss", "entropy", "ortho"]
    assert about["switch_top2"]["columns"] == ["step", "loss", "balance"]
    assert about["hash"]["columns"] == ["step", "loss"]
    assert about["hash"]["agreement"] == {"first_choice": [1.0, 1.0], "experts": [1.0, 1.0]}
    assert about["switch_top2"]["agreement"]["first_choice"] == [1.0, 1.0]
    assert all(0 < share <= 1 for share in about["spectra"]["agreement"]["first_choice"])
    checks = about["spectra"]["checks"]
    assert max(checks["row_sums"]) < 1e-4  # the plan's rows are exact
    assert min(checks["column_sums"]) > max(checks["row_sums"])  # its columns are not
    assert max(checks["gram_diagonal"]) < 1e-5
    assert all(0 <= value <= 1 for value in checks["gram_rms"])
    assert about["switch_top2"]["checks"] == {}


def test_columns_of_the_transport_approach_an_even_share_with_the_iterations(cache: Path) -> None:
    """The stored check is that of the saved weights, and with many more iterations its equation is met: nothing else stands in the way."""
    (directory,) = cache.glob("spectra-*")
    about = json.loads((directory / "training.json").read_text())
    model = RoutedMixtralForCausalLM.from_pretrained(directory)
    of = material.load(stored(SPEC, small_corpus(), cache, Silent()))
    found = {}
    for iterations in (1, SPECTRA.iterations, 2_000):
        for router in routers_of(model):
            router.knobs["iterations"] = iterations
        found[iterations] = max(compare_modes(model, of, SPEC)["checks"]["column_sums"])
    assert found[SPECTRA.iterations] == pytest.approx(max(about["checks"]["column_sums"]), rel=1e-3)
    assert found[1] > found[SPECTRA.iterations] > found[2_000]
    assert found[2_000] < EQUATIONS["column_sums"].tolerance < found[1]


def test_killed_in_mid_training_and_resumed_it_has_the_weights_of_an_undisturbed_run(tmp_path: Path) -> None:
    """The process is killed from outside as soon as it has saved a state; the next one goes on from there.

    All three are new processes: what other tests did to this one's libraries may move a last bit.
    """
    program = CHILD.format(root=str(Path(__file__).parents[3]), beside=(), processes=1, arms=("spectra",))
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"

    def trained(directory: Path) -> subprocess.Popen[bytes]:
        directory.mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, "-c", program, str(directory)], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)

    child = trained(killed)
    state = _wait_for(killed, "spectra-*/resume.safetensors", child)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert state.exists()
    assert not (state.parent / "training.json").exists()
    for directory in (killed, quiet):
        again = trained(directory)
        again.communicate()
        assert again.returncode == 0
    want, have = weights_of(quiet, "spectra"), weights_of(killed, "spectra")
    assert want.keys() == have.keys()
    assert all(torch.equal(want[name], have[name]) for name in want)
    assert json.loads((state.parent / "training.json").read_text())["cpu_seconds"] is None  # what the killed process spent is not known


def _wait_for(directory: Path, pattern: str, child: Any, seconds: float = 120.0) -> Path:
    for _ in range(int(seconds / 0.02)):
        if found := list(directory.glob(pattern)):
            return found[0]
        assert child.poll() is None, child.stderr.read().decode()[-2000:]
        time.sleep(0.02)
    raise AssertionError(f"no {pattern} after {seconds} s")


@pytest.mark.slow
def test_a_killed_process_of_two_ends_the_campaign_and_another_one_finishes_it(cache: Path, tmp_path: Path) -> None:
    program = CHILD.format(root=str(Path(__file__).parents[3]), beside=("hash",), processes=2, arms=("switch_top2", "spectra"))
    file = tmp_path / "campaign.py"
    file.write_text(program)
    run = [sys.executable, str(file), str(tmp_path / "models")]
    parent = subprocess.Popen(run, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    _wait_for(tmp_path / "models", "*/resume.safetensors", parent)
    workers = [one for one in psutil.Process(parent.pid).children() if any("spawn_main" in part for part in one.cmdline())]
    assert workers
    workers[0].send_signal(signal.SIGKILL)
    _, said = parent.communicate(timeout=120)
    assert parent.returncode == 1
    assert b"ShareError: a process ended with exit code -9" in said
    subprocess.run(run, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    for arm in ("switch_top2", "spectra", "hash"):
        want, have = weights_of(cache, arm), weights_of(tmp_path / "models", arm)
        assert all(torch.equal(want[name], have[name]) for name in want)


def test_two_processes_are_told_of_as_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are dealt and every step is counted once, also those of an earlier attempt; the processes themselves are another test."""
    from experiments.testbed import campaign

    told: list[str] = []

    class Counting:
        @contextmanager
        def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Any]:
            told.append(f"{name} {total} {unit}")
            yield self

        def advance(self, n: int = 1) -> None:
            told.append("step")

        def note(self, text: str) -> None:
            pass

    def one_after_the_other(work: Any, shares: Any, on_done: Any) -> None:
        for share in shares:
            work(share, on_done)

    monkeypatch.setattr(campaign, "work_side_by_side", one_after_the_other)
    spec = SPEC.model_copy(update={"steps": 6})
    train_all(CampaignSpec(seeds=1, beside=(), processes=2), spec, SPECTRA, small_corpus(), tmp_path, Counting())
    assert "train arms 12 steps" in told
    assert told.count("step") == 12 + 1  # and one of the tokenizer's stage


def test_collected_arms_are_evidence(collected: Path) -> None:
    arms = arm_runs(collected, {"switch_top2": (3,), "spectra": (3,), "hash": (3,)})
    assert differences_of(arms)["hash"] == ()
    runs = [of_arm[0] for of_arm in arms.values()]
    assert len({run.conditions.evaluation_documents for run in runs}) == 1
    assert len({tuple(run.inputs.document_T) + tuple(run.inputs.position_T) for run in runs}) == 1
    assert len({run.representations.probe_ids for run in runs}) == 1
    assert {run.conditions.tokens_seen for run in runs} == {60 * 6 * 32}
    for run in runs:
        assert [row.split for row in run.trace.documents].count("test") > 5
        assert run.representations.probe_PLEd.shape == (9, 2, 4, 32)
        assert run.inputs.vectors[0].shape == (200, 32)
        assert run.inputs.vectors[0].dtype == np.float16
        assert (run.tokens_D > 0).all()
        assert 2 < run.loss_nats_D.sum() / run.tokens_D.sum() < 6
    assert [one.shape for one in arms["spectra"][0].representations.routing_LEr] == [(4, 4)] * 2
    assert arms["hash"][0].representations.routing_LEr == ()
    assert {name: of_arm[0].scored for name, of_arm in arms.items()} == {"switch_top2": True, "spectra": True, "hash": False}
    assert not any(run.fillers for run in runs)
    rows = curve_rows(arms)
    assert {row["term"] for row in rows} == {"loss", "balance", "entropy", "ortho"}
    assert {row["step"] for row in rows} == {10, 20, 30, 40, 50, 60}


def test_a_checkpoint_in_memory_says_of_itself_that_it_scores_no_expert(cache: Path, tmp_path: Path) -> None:
    """The seed's toolkit knows arms by their routers, not by their names."""
    said = {}
    for arm in ("hash", "spectra"):
        (directory,) = cache.glob(f"{arm}-*")
        source = HuggingFaceSource.open(SourceSpec(model=str(directory), max_length=48), Silent())
        documents = [replace(one, document=number, split="test") for number, one in enumerate(routed_documents(small_corpus(), source)[:6])]
        run, _ = run_of(source, documents, tmp_path / arm, tokens=20, probes=1)
        said[arm] = run.scored, run.fillers, compute_routing_confidence(Features(run, source.token_strings())).reason
    assert said == {"hash": (False, False, UNSCORED), "spectra": (True, False, None)}


def test_features_are_what_the_model_says(cache: Path, collected: Path) -> None:
    """Losses, inputs, centroids and expert outputs again, one document at a time, from the checkpoint itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = arm_runs(collected, {"spectra": (3,)})["spectra"][0]
    directory = next(cache.glob("spectra-*"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    texts = {document.id: document.text for document in small_corpus().documents}
    block = model.model.layers[1].mlp
    heard: list[torch.Tensor] = []
    decided: list[Any] = []
    block.gate.register_forward_pre_hook(lambda _m, args: heard.append(args[0][0]))
    block.gate.register_forward_hook(lambda _m, _a, output: decided.append(output))
    centroids, probes = np.zeros((4, 32)), np.zeros((len(run.representations.probe_ids), 4, 32))
    for place, row in enumerate(run.trace.documents):
        ids = torch.tensor(tokenizer(texts[row.id])["input_ids"][:48])
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum")
        assert run.loss_nats_D[place] == pytest.approx(float(loss), rel=1e-4)
        assert run.tokens_D[place] == len(ids) - 1
        _, weights, chosen = decided[-1]
        first = chosen.gather(1, weights.argmax(1, keepdim=True))[:, 0]
        sampled = np.flatnonzero(run.inputs.document_T == row.document)
        assert run.inputs.vectors[1][sampled].astype(float) == pytest.approx(heard[-1][run.inputs.position_T[sampled]].numpy(), abs=5e-3)
        if row.split == "test":
            np.add.at(centroids, first.numpy(), heard[-1].double().numpy())
        if row.id in run.representations.probe_ids:
            x = heard[-1][:20]
            for expert in range(4):
                gate, up = (x @ block.experts.gate_up_proj[expert].detach().T).chunk(2, dim=-1)
                out = (torch.nn.functional.silu(gate) * up) @ block.experts.down_proj[expert].detach().T
                probes[run.representations.probe_ids.index(row.id), expert] = out.sum(0).numpy()
    assert run.representations.centroid_LEd[1] == pytest.approx(centroids, rel=1e-3, abs=1e-2)
    assert run.representations.probe_PLEd[:, 1] == pytest.approx(probes, rel=1e-3, abs=1e-4)
    assert run.representations.probe_tokens_P.tolist() == [20] * 9
    norm = block.experts.gate_up_proj[2].square().sum() + block.experts.down_proj[2].square().sum()
    assert run.representations.expert_norm_LE[1, 2] == pytest.approx(float(norm.sqrt().detach()), rel=1e-5)


def test_a_collected_arm_is_left_as_it_is_and_a_half_one_is_finished(cache: Path, collected: Path) -> None:
    trained = train_all(CAMPAIGN, SPEC, SPECTRA, small_corpus(), cache, Silent())
    source = HuggingFaceSource.open(SourceSpec(model=str(trained[0].directory), max_length=48), Silent())
    wanted = Wanted(SourceSpec(max_length=48, batch_size=4), CAMPAIGN, routed_documents(small_corpus(), source), collected)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in collected.rglob("*") if path.is_file()}
    (collected / "spectra-3" / "features.json").unlink()
    (collected / "spectra-3" / "losses.npz").write_bytes(b"cut")
    (collected / "hash-3" / "inputs_0.npy").write_bytes(b"damaged")
    assert [is_whole(one, wanted) for one in trained] == [True, False, False]
    collect_all(trained, wanted, Silent())
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in collected.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    assert {path.parent.name for path in before if after[path][0] != before[path][0]} == {"spectra-3", "hash-3"}  # their traces were whole
    assert all(after[path][1] == before[path][1] for path in before if path.suffix != ".npz")
    for name in ("losses", "inputs", "representations"):
        with np.load(collected / "spectra-3" / f"{name}.npz") as again:
            want = np.load(io.BytesIO(before[collected / "spectra-3" / f"{name}.npz"][1]))
            assert all(np.array_equal(want[key], again[key]) for key in want.files)


def test_a_collection_of_another_checkpoint_or_of_other_documents_is_not_taken_for_this_one(cache: Path, collected: Path, tmp_path: Path) -> None:
    trained = next(one for one in train_all(CAMPAIGN, SPEC, SPECTRA, small_corpus(), cache, Silent()) if one.arm == "switch_top2")
    source = HuggingFaceSource.open(SourceSpec(model=str(trained.directory), max_length=48), Silent())
    documents = routed_documents(small_corpus(), source)
    here = tmp_path / "arms"
    shutil.copytree(collected, here)
    wanted = Wanted(SourceSpec(max_length=48, batch_size=4), CAMPAIGN, documents, here)
    assert is_whole(trained, wanted)
    renamed = tuple(replace(one, domain="winds") if one.domain == "rocks" else one for one in documents)
    other_sample = CAMPAIGN.model_copy(update={"sample_tokens": 100})
    for unlike in (replace(wanted, documents=documents[1:]), replace(wanted, documents=renamed), replace(wanted, campaign=other_sample),
                   replace(wanted, source=SourceSpec(max_length=40, batch_size=4))):
        assert not is_whole(trained, unlike)
    other = tmp_path / trained.directory.name
    shutil.copytree(trained.directory, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: one * 1.5 for name, one in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    retrained = replace(trained, directory=other)
    assert not is_whole(retrained, wanted)
    (here / "switch_top2-3" / "features.json").unlink()  # as if killed before it was whole: its shards are not those of the other checkpoint
    collect_all([retrained], wanted, Silent())
    was, now = (arm_runs(directory, {"switch_top2": (3,)})["switch_top2"][0] for directory in (collected, here))
    assert is_whole(retrained, wanted)
    assert not is_whole(trained, wanted)
    assert not np.array_equal(was.loss_nats_D, now.loss_nats_D)
    assert was.trace.digest != now.trace.digest


def test_a_trial_of_the_sweep_is_measured_as_an_arm_is(cache: Path, collected: Path) -> None:
    """Choosing and confirming differ in documents alone, and the report's own numbers of an arm are of the same measure."""
    run = arm_runs(collected, {"spectra": (3,)})["spectra"][0]
    counts = RunCounts(run, SpectraSettings())
    context: Any = SimpleNamespace(experiment=SimpleNamespace(source=SourceSpec(max_length=48, batch_size=4), seed=0), corpus=small_corpus())
    bits, nats = measured(context, next(cache.glob("spectra-*")), "test")
    assert bits == pytest.approx(counts.domain_draws()["mi_E_D"].estimates()[-1].value, abs=1e-9)
    assert nats == pytest.approx(counts.loss_draws()["held_out_loss"].estimates()[-1].value, rel=1e-6)
    places = [place for place, row in enumerate(run.trace.documents) if row.split == "calibration"]
    calibration = measured(context, next(cache.glob("spectra-*")), "calibration")[1]
    assert calibration == pytest.approx(run.loss_nats_D[places].sum() / run.tokens_D[places].sum(), rel=1e-3)
    assert calibration != pytest.approx(nats, rel=1e-3)
