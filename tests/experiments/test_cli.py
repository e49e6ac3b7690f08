"""Bad input at the command line: refused with what, where and remedy, without a traceback, and with nothing half made."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from experiments import cli
from hypotheses.findings import findings_from_json
from tests.experiments import tiny_corpus
from tests.experiments.sources.tiny_checkpoints import save
from tests.experiments.tiny_runs import NOWHERE, arguments, run_directory, stages

ROWS = tuple(tiny_corpus.rows(per_domain=20))
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("olmoe", tmp_path_factory.mktemp("model") / "olmoe")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASSAY_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    return tmp_path / "root"


@pytest.fixture
def refused(root: Path, capsys) -> Refused:
    """Run the command; what it said as it refused. An exception that comes through is a failure of the test."""
    def run(*argv: str, leaves: str = "nothing") -> str:
        assert cli.main(list(argv)) == 1
        said = capsys.readouterr()
        assert "VERDICT" not in said.out
        directories = [path for path in root.iterdir() if path.name != "cache"] if root.exists() else []
        if leaves == "nothing":
            assert directories == []
        return said.err.strip().splitlines()[-1] if said.err.count("assay: ") == 1 and "mistake" not in said.err else said.err
    return run


def corpus(path: Path, rows: Iterable[object] = ROWS) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("override", "says"), [
    ("analysis.entropy_threshold=0.5", ("--set analysis.entropy_threshold=0.5", "has no unit", '"0.5 nats at 8 experts"')),
    ('analysis.entropy_threshold="0.5 nat"', ("cannot read", '"0.24 of ln E"')),
    ('uncertainty.unit="token"', ("cannot be resampled", 'write unit = "document"')),
    ("uncertainty.n_bootstap=99", ("no such key", "did you mean 'n_bootstrap'?")),
    ("corpus.test_shre=0.2", ("no such key", "did you mean 'test_share'?")),
    ("seed", ("write --set key.sub=value",)),
    ("seed=[1,", ("values are TOML",)),
    ("seed=-1", ("seed", "greater than or equal to 0")),
    ("sweep.n_trials=4", ("sweep.n_trials", "greater than or equal to 32")),
    ("corpus.num_samples=-2", ("corpus.num_samples", "whole number above 0")),
    ('source.quantize="3bit"', ("source.quantize", "did you mean '8bit'?")),
])
def test_a_mistaken_override(override: str, says: tuple[str, ...], refused: Refused, tmp_path: Path) -> None:
    words = refused(*arguments(corpus(tmp_path / "c.jsonl"), "--set", override))
    assert all(part in words for part in says), words


def test_every_mistake_is_named_at_once(refused: Refused, tmp_path: Path) -> None:
    words = refused(*arguments(corpus(tmp_path / "c.jsonl"), "--set", "analysis.entropy_threshold=0.5", "--set", "sed=1"))
    assert "2 mistakes" in words and "has no unit" in words and "did you mean 'seed'?" in words


@pytest.mark.parametrize(("argv", "says"), [
    (("run", "vra"), "did you mean 'var'?"),
    (("run", "var", "--profile", "tinny"), "profile.tinny: no such profile; did you mean 'tiny'?"),
    (("resume", "nope"), "no run there and none of that name under"),
    (("report", "../.."), "`assay list` shows them"),
    (("publish", "a\0b"), "`assay list` shows them"),
    (("resume", "x" * 5000), "`assay list` shows them"),
    (("register", "vra"), "did you mean 'var'?"),
    (("doctor", "./missing"), "no such checkpoint directory"),
])
def test_a_name_that_is_not_there(argv: tuple[str, ...], says: str, refused: Refused) -> None:
    words = refused(*argv)
    assert says in words and len(words) < 500


@pytest.mark.parametrize(("rows", "says"), [
    ([], ("c.jsonl", "the corpus is empty", "give documents of at least 200 bytes")),
    ([{"domain": "a", "text": "too short"}], ("the corpus is empty", "1 under 200 bytes")),
    ([row for row in ROWS if row["domain"] == "herbs"], ("only the domain 'herbs'", "corpus.one_domain = true")),
    ([ROWS[0], {"id": "x", "domain": "rocks", "body": "text " * 60}], ("c.jsonl:2", "no column 'text'", "columns seen: 'id', 'domain', 'body'")),
    ([ROWS[0], '{"id": "x", "text": '], ("c.jsonl:2", "not JSON", "correct or delete the line")),
    ([ROWS[0], "[" * 100_000], ("c.jsonl:2", "not JSON")),
    ([ROWS[0], "[1, 2]"], ("c.jsonl:2", "a JSON object is expected, found list")),
    ([ROWS[0], {**ROWS[1], "text": None}], ("c.jsonl:2", "'text' must be text")),
    ([ROWS[0], {**ROWS[1], "text": ROWS[1]["text"] + "\ud800"}], ("c.jsonl:2", "'text' holds half a surrogate pair")),
    ([ROWS[0], {**ROWS[1], "id": "\ud800"}], ("c.jsonl:2", "'id' holds half a surrogate pair")),
    ([ROWS[0], {**ROWS[1], "domain": "herbs\ud800"}], ("c.jsonl:2", "'domain' holds half a surrogate pair")),
    ([*ROWS, {**ROWS[0], "id": "again", "domain": "rocks", "text": "  " + ROWS[0]["text"]}], ("stand under two domains", "'again'")),
    ([*ROWS, {**ROWS[0], "text": ROWS[1]["text"]}], ("'herbs/000'", "occurs twice")),
])
def test_a_corpus_that_cannot_be_read(rows: list[object], says: tuple[str, ...], refused: Refused, tmp_path: Path) -> None:
    words = refused(*arguments(corpus(tmp_path / "c.jsonl", rows)))
    assert all(part in words for part in says), words


def test_a_corpus_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert "no such file or folder (corpus.path)" in refused(*arguments(tmp_path / "absent.jsonl"))


def test_a_dense_model_names_its_modules(refused: Refused, tmp_path: Path) -> None:
    dense = save("llama", tmp_path / "dense")
    words = refused(*arguments(corpus(tmp_path / "c.jsonl"), "--model", str(dense)))
    assert f"model '{dense}': no router found; modules seen:" in words and "LlamaMLP" in words


@pytest.mark.parametrize(("damage", "says"), [
    ({"config.json": b"{"}, ("config.json", "not a valid JSON file")),
    ({"model.safetensors": None}, ("no *.safetensors file", "missing")),
    ({"model.safetensors": None, "pytorch_model.bin": b"pickled"}, ("pytorch_model.bin is a pickle", "Convert once")),
])
def test_a_checkpoint_that_is_not_whole(damage: dict[str, bytes | None], says: tuple[str, ...], refused: Refused, tmp_path: Path,
                                        checkpoint: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    for name, content in damage.items():
        (broken / name).unlink(missing_ok=True)
        if content is not None:
            (broken / name).write_bytes(content)
    words = refused(*arguments(corpus(tmp_path / "c.jsonl"), "--model", str(broken)))
    assert str(broken) in words and all(part in words for part in says), words


@pytest.mark.parametrize(("option", "says"), [
    (("--layers", "9"), "layers: [9] have no router; the MoE layers of this model are [0, 1]"),
    (("--dtype", "float99"), "dtype: 'float99' is not known; use auto, float32"),
    (("--device", "abacus"), "device: 'abacus' is not a torch device"),
])
def test_what_this_model_or_machine_does_not_have(option: tuple[str, str], says: str, refused: Refused, tmp_path: Path, checkpoint: Path) -> None:
    assert says in refused(*arguments(corpus(tmp_path / "c.jsonl"), "--model", str(checkpoint), *option))


def with_weights(checkpoint: Path, to: Path, name: str, index: object) -> Path:
    """The checkpoint with some of its weights made NaN."""
    shutil.copytree(checkpoint, to)
    tensors = load_file(to / "model.safetensors")
    tensors[name][index] = float("nan")  # type: ignore[index]
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_a_router_whose_logits_are_nan(refused: Refused, root: Path, tmp_path: Path, checkpoint: Path) -> None:
    broken = with_weights(checkpoint, tmp_path / "nan", "model.layers.1.mlp.gate.weight", 3)
    words = refused(*arguments(corpus(tmp_path / "c.jsonl"), "--model", str(broken)), leaves="a failed run")
    assert "layer model.layers.1.mlp.gate" in words and "router logits are not finite" in words and "weights are damaged" in words
    assert stages(run_directory(root))["collect"]["status"] == "FAILED"
    assert not list((run_directory(root) / "trace").iterdir())


def test_a_token_whose_logits_are_nan_is_named_with_its_place(refused: Refused, root: Path, tmp_path: Path, checkpoint: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    from experiments.sources.inputs import framing_of
    from experiments.sources.opening import probe_documents

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    framing = framing_of(tokenizer, AutoConfig.from_pretrained(checkpoint))
    probed = {token for one in probe_documents(320, framing.dropped, 512) for token in one.token_ids}
    letter, token = next((letter, ids[0]) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                         if (ids := tokenizer(letter, add_special_tokens=False)["input_ids"])[0] not in probed)
    rows = [{**row, "text": f"{row['text'][:9]}{letter}{row['text'][9:]}"} if row["domain"] == "winds" else row for row in ROWS]
    broken = with_weights(checkpoint, tmp_path / "nan", "model.embed_tokens.weight", token)
    words = refused(*arguments(corpus(tmp_path / "c.jsonl", rows), "--model", str(broken)), leaves="a failed run")
    # a NaN key reaches every query of its sequence, masked or not: the first token is the first that is seen
    assert "document 'winds/" in words and "token 0 (id " in words and "layer model.layers.0.mlp.gate" in words
    assert "shard" in words and "Nothing of this shard was kept" in words


def test_a_tokenizer_that_makes_no_tokens(refused: Refused, tmp_path: Path, checkpoint: Path) -> None:
    broken = tmp_path / "mute"
    shutil.copytree(checkpoint, broken)
    for path in broken.glob("token*"):
        path.unlink()
    words = refused(*arguments(corpus(tmp_path / "c.jsonl"), "--model", str(broken)), leaves="a failed run")
    assert "tokenizer" in words and "tokenizer.json" in words


def test_a_corpus_without_a_document_to_route(refused: Refused, tmp_path: Path) -> None:
    words = refused(*arguments(corpus(tmp_path / "c.jsonl"), "--num-samples", "3"), leaves="a failed run")
    assert "none of its 3 documents falls into the splits calibration and test" in words and "give more documents" in words


@pytest.mark.parametrize(("share", "why"), [
    pytest.param("0.02", "one document: no spread between documents", marks=pytest.mark.slow), ("0.0001", "no test documents")])
def test_one_test_document_or_none_is_inconclusive_and_no_error(share: str, why: str, root: Path, tmp_path: Path, checkpoint: Path, capsys) -> None:
    file = corpus(tmp_path / "c.jsonl")
    assert cli.main(arguments(file, "--model", str(checkpoint), "--set", "corpus.calibration_share=0.4", "--set", f"corpus.test_share={share}")) == 0
    assert "VERDICT   INCONCLUSIVE" in capsys.readouterr().out
    (finding,) = findings_from_json((run_directory(root) / "findings.json").read_text())
    for one in finding.criteria:
        assert one.outcome == "inconclusive"
        assert one.estimate.low is None and one.estimate.high is None
    assert any(why in (one.estimate.reason or "") for one in finding.criteria)
    page = (run_directory(root) / "report" / "report.html").read_text()
    assert not re.search(r">\s*(nan|None)\s*<", page)


@pytest.mark.slow
def test_names_that_look_like_paths_stay_in_the_run(root: Path, tmp_path: Path, checkpoint: Path) -> None:
    names = {"herbs": "../../escape", "rocks": "a/b<script>alert(1)</script>", "winds": "CON" + "x" * 300}
    rows = [{**row, "domain": names[row["domain"]], "id": f"../../../{row['id']}"} for row in ROWS]
    assert cli.main(arguments(corpus(tmp_path / "c.jsonl", rows), "--model", str(checkpoint))) == 0
    page = (run_directory(root) / "report" / "report.html").read_text()
    assert "<script>alert(1)" not in page and "&lt;script&gt;" in page
    assert {path.name for path in tmp_path.iterdir()} == {"c.jsonl", "root"}
    assert all(len(path.name) < 64 and "escape" not in path.name for path in root.rglob("*"))


def test_a_port_in_use(root: Path, capsys) -> None:
    with socket.socket() as holding:
        holding.bind(("127.0.0.1", 0))
        holding.listen()
        port = holding.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI")
            assert cli.main(["ui", "--port", str(port)]) == 1
    assert f"port {port} on 127.0.0.1: Address already in use; choose another" in capsys.readouterr().err
    assert not root.exists()


def test_a_damaged_run_does_not_hide_the_others(root: Path, capsys) -> None:
    (root / "var-tiny-00000000").mkdir(parents=True)
    (root / "var-tiny-00000000" / "state.json").write_text("{")
    assert cli.main(["list"]) == 0
    assert "var-tiny-00000000" in (listed := capsys.readouterr().out) and "DAMAGED" in listed
    assert cli.main(["resume", "var-tiny-00000000"]) == 1
    assert "state.json" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["run"], ["frobnicate"], ["ui", "--port", "x"]])
def test_wrong_usage_exits_with_two(argv: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    assert "usage: assay" in capsys.readouterr().err
