from pathlib import Path

import pytest

from experiments.testbed.tokenizer import END, END_ID, MIN_VOCABULARY, PAD, PAD_ID, encode, learn, save

TEXTS = ["the quick brown fox", "the quicker brown foxes", "def f(x):\n    return x  # naïve"] * 20
HARD = ["😀 half of it", "\x00 nul", "‮right to left", "日本語", "   spaces\n\n\ttabs", "<|endoftext|>", "", "ünïcödé " * 50]


def test_the_same_texts_give_the_same_json() -> None:
    assert learn(TEXTS, 320).to_str() == learn(iter(TEXTS), 320).to_str()


def test_every_byte_is_known_and_the_size_is_kept() -> None:
    tokenizer = learn(TEXTS, 300)
    assert tokenizer.get_vocab_size() <= 300
    assert (tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)) == (END_ID, PAD_ID)
    for text in HARD:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_learnt_merges_shorten_text() -> None:
    short, long = (len(learn(TEXTS, size).encode("the quick brown fox").ids) for size in (320, MIN_VOCABULARY))
    assert (short, long) == (4, 19)


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"testbed\.vocabulary = 257: a byte-level vocabulary has at least 258 entries"):
        learn(TEXTS, 257)


def test_auto_tokenizer_reads_the_directory_and_agrees(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, MixtralConfig

    tokenizer = learn(TEXTS, 320)
    save(tokenizer, tmp_path)
    MixtralConfig().save_pretrained(tmp_path)  # the model type must not decide the tokenizer's class
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in HARD + TEXTS[:3]:
        assert loaded(text)["input_ids"] == tokenizer.encode(text).ids
    assert (loaded.eos_token_id, loaded.pad_token_id) == (END_ID, PAD_ID)
    assert encode(tokenizer, HARD) == [tokenizer.encode(text).ids for text in HARD]
