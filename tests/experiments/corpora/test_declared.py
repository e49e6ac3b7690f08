import tomllib
from pathlib import Path

import pytest

import experiments
from experiments.specs import CorpusSpec

DIRECTORY = Path(experiments.__file__).parent / "declared" / "corpora"

# the domain lists that the seeds name; where seed 000 speaks of six domains it names four
NAMED = {
    "seed000": {"qa", "sentiment", "news", "wiki"},
    "seed001": {"qa", "sentiment", "news", "wiki", "code", "math"},
    "seed003_c4": {"c4"},
    "seed003_wikitext": {"wikitext"},
    "seed004": {"code", "math", "science", "history", "literature"},
}


def test_the_seeds_have_their_declarations() -> None:
    assert {path.stem for path in DIRECTORY.glob("*.toml")} == set(NAMED)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_each_declaration_is_valid_and_has_the_domains_the_seed_names(name: str) -> None:
    spec = CorpusSpec.model_validate(tomllib.loads((DIRECTORY / f"{name}.toml").read_text(encoding="utf-8")))
    domains = {source.domain for source in spec.sources}
    assert spec.name == "datasets"
    assert domains >= NAMED[name]
    assert spec.one_domain == (len(domains) == 1)
    assert all("/" in source.name for source in spec.sources)  # owner and name: bare names are aliases that move
