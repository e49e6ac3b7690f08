import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.progress import Silent
from experiments.testbed import train
from experiments.testbed.held_out import WINDOWS_PER_DOMAIN
from experiments.testbed.recipe import TestbedError
from experiments.testbed.training import texts_of
from experiments.testbed.windows import cut_into_windows, spread

from .small_corpus import SMALL, small_corpus

CHILD = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [{root!r}, {here!r}]
from small_corpus import SMALL, small_corpus
from experiments.testbed import train


class Deadly:
    '''Progress that kills its own process when training has passed so many tokens.'''

    @contextmanager
    def stage(self, name, total=None, unit=""):
        self.name, self.done = name, 0
        yield self

    def advance(self, n=1):
        self.done += n
        if self.name == "training" and self.done >= {steps} * SMALL.batch * SMALL.window:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, text):
        pass


train(SMALL, small_corpus(), Path(sys.argv[1]), Deadly())
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # for speed: on a busy machine two threads wait for each other
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SMALL, small_corpus(), tmp_path_factory.mktemp("testbed") / "model", Silent())


def killed_after(steps: int, out: Path) -> None:
    here = Path(__file__).parent
    program = CHILD.format(root=str(here.parents[2]), here=str(here), steps=steps)
    done = subprocess.run([sys.executable, "-c", program, str(out)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


def test_the_directory_is_an_ordinary_checkpoint(undisturbed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(undisturbed)
    tokenizer = AutoTokenizer.from_pretrained(undisturbed)
    assert type(model).__name__ == "MixtralForCausalLM"
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json", "recipe.json"} <= {
        path.name for path in undisturbed.iterdir()
    }
    assert not (undisturbed / "resume.safetensors").exists()


def test_it_learns_and_says_how_well(undisturbed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    about = json.loads((undisturbed / "training.json").read_text())
    assert about["held_out_nats"] < about["losses"][0][1] < 6
    assert set(about["held_out_nats_by_domain"]) == {"herbs", "rocks", "winds"}
    assert len(about["load"]) == SMALL.layers
    assert all(0 <= layer["usage_entropy"] <= 1 and sum(layer["counts"]) % SMALL.top_k == 0 for layer in about["load"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(undisturbed), AutoTokenizer.from_pretrained(undisturbed)
    nats, n = 0.0, 0
    for texts in texts_of(small_corpus(), "calibration").values():  # the same number from the saved model, one window at a time, unpadded
        windows = spread(cut_into_windows([tokenizer(text)["input_ids"] for text in texts], SMALL.window), WINDOWS_PER_DOMAIN)
        for ids, length in zip(windows.ids_WS, windows.lengths_W, strict=True):
            window = torch.from_numpy(ids[:length])
            with torch.no_grad():
                logits = model(window[None]).logits[0, :-1]
            nats += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
            n += len(window) - 1
    assert n == about["held_out_tokens"]
    assert nats / n == pytest.approx(about["held_out_nats"], abs=1e-4)


def test_a_finished_directory_is_reused(undisturbed: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    assert train(SMALL, small_corpus(), undisturbed, Silent()) == undisturbed
    assert {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()} == before


def test_another_recipe_in_the_same_directory_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"another recipe \(seed: 3 there, 4 declared\)"):
        train(SMALL.model_copy(update={"seed": 4}), small_corpus(), undisturbed, Silent())
    with pytest.raises(TestbedError, match=r"another recipe \(corpus: "):
        train(SMALL, small_corpus("secret"), undisturbed, Silent())
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(TestbedError, match="holds files but no recipe.json"):
        train(SMALL, small_corpus(), tmp_path, Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_killed_twice_and_resumed_it_has_the_weights_of_an_undisturbed_run(undisturbed: Path, tmp_path: Path) -> None:
    killed_after(20, tmp_path / "model")  # before the first saved state: starts over
    assert not (tmp_path / "model" / "resume.safetensors").exists()
    killed_after(75, tmp_path / "model")  # continues after step 50
    assert (tmp_path / "model" / "resume.safetensors").exists()
    train(SMALL, small_corpus(), tmp_path / "model", Silent())
    want, have = (load_file(directory / "model.safetensors") for directory in (undisturbed, tmp_path / "model"))
    assert want.keys() == have.keys()
    assert all(torch.equal(want[name], have[name]) for name in want)
    about = [json.loads((directory / "training.json").read_text()) for directory in (undisturbed, tmp_path / "model")]
    assert about[0] == about[1]


def test_a_damaged_state_starts_over(undisturbed: Path, tmp_path: Path) -> None:
    killed_after(60, tmp_path / "model")
    state = tmp_path / "model" / "resume.safetensors"
    state.write_bytes(state.read_bytes()[:-1000])
    train(SMALL, small_corpus(), tmp_path / "model", Silent())
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


def test_nothing_of_a_test_document_is_learnt(undisturbed: Path, tmp_path: Path) -> None:
    other = train(SMALL, small_corpus("zzqqx"), tmp_path / "model", Silent())
    for name in ("model.safetensors", "tokenizer.json"):
        assert (other / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_domain_without_training_documents_is_named(tmp_path: Path) -> None:
    corpus = small_corpus()
    documents = tuple(d for d in corpus.documents if not (d.domain == "winds" and d.split == "train"))
    with pytest.raises(TestbedError, match="no training document in winds"):
        train(SMALL, type(corpus)(documents, corpus.manifest), tmp_path / "model", Silent())


def test_the_weights_do_not_depend_on_the_threads_of_the_machine(undisturbed: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        other = train(SMALL, small_corpus(), tmp_path / "model", Silent())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert (other / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
