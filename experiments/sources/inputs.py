"""From documents to one padded batch, and back from its rows to the documents' tokens.

B document, S padded length, T kept token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from experiments.sources import TokenDocument
from experiments.sources.errors import SourceError

if TYPE_CHECKING:
    import torch

Side = Literal["right", "left"]


@dataclass(frozen=True)
class Framing:
    """Special tokens that the model needs around a document.

    prefix, suffix: ids before and after it; dropped: special ids whose rows are not kept (the unknown token is content);
    pad: id to pad with; decoder_start: first id of the decoder of an encoder-decoder model, else None.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    dropped: frozenset[int]
    pad: int
    decoder_start: int | None = None

    @property
    def overhead(self) -> int:
        """Tokens added to every document in the longest stack."""
        return max(len(self.prefix) + len(self.suffix), self.decoder_start is not None)


def framing_of(tokenizer: Any, config: Any) -> Framing:
    """What the tokenizer puts around a text, from a text whose special tokens it marks itself."""
    probe = tokenizer("a b", return_special_tokens_mask=True)
    ids, marks = list(probe["input_ids"]), list(probe["special_tokens_mask"])
    content = [place for place, mark in enumerate(marks) if not mark] or [len(ids)]
    special = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    pad = next((value for value in (tokenizer.pad_token_id, getattr(config, "pad_token_id", None), tokenizer.eos_token_id)
                if isinstance(value, int)), 0)
    start = None
    if getattr(config, "is_encoder_decoder", False):
        start = getattr(config, "decoder_start_token_id", None)
        start = pad if start is None else int(start)
    return Framing(tuple(ids[:content[0]]), tuple(ids[content[-1] + 1:]), special, pad, start)


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of the tokenizer's own serialisation (of its sorted vocabulary, if it has none)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ModelBatch:
    """One forward pass.

    tensors: what the model is called with; rows: per stack, the flat row (b * S + s) of each kept token, the same tokens in every stack;
    n_rows: B * S per stack; n_pads: pads over all stacks; document, position, token_id: int32 [T].
    """

    tensors: Mapping[str, torch.Tensor]
    rows: Mapping[str, torch.Tensor]
    n_rows: Mapping[str, int]
    n_pads: int
    document: NDArray[np.int32]
    position: NDArray[np.int32]
    token_id: NDArray[np.int32]


def _padded(sequences: Sequence[Sequence[int]], pad: int, side: Side) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Padded ids [B, S], mask [B, S], and the column of each sequence's first token [B]."""
    longest = max(len(sequence) for sequence in sequences)
    ids = np.full((len(sequences), longest), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    first = np.zeros(len(sequences), dtype=np.int64)
    for number, sequence in enumerate(sequences):
        first[number] = longest - len(sequence) if side == "left" else 0
        place = slice(first[number], first[number] + len(sequence))
        ids[number, place], mask[number, place] = sequence, 1
    return ids, mask, first


def model_batch(documents: Sequence[TokenDocument], framing: Framing, device: Any, side: Side = "right") -> ModelBatch:
    """Pad framed documents to one length; special tokens and pads get no row.

    An encoder reads the framed document; its decoder reads the start token and the document, and the start has no row.
    """
    import torch

    tokens = [np.asarray(document.token_ids, dtype=np.int64) for document in documents]
    kept = [np.flatnonzero(~np.isin(ids, list(framing.dropped))) for ids in tokens]
    framed = [[*framing.prefix, *ids.tolist(), *framing.suffix] for ids in tokens]
    ids, mask, first = _padded(framed, framing.pad, side)
    arrays = {"input_ids": ids, "attention_mask": mask}
    rows, n_rows = {}, {}

    def place(stack: str, columns: NDArray[np.int64], offset: int, width: int) -> None:
        flat = [number * width + columns[number] + offset + where for number, where in enumerate(kept)]
        rows[stack], n_rows[stack] = torch.from_numpy(np.concatenate(flat)).to(device), len(tokens) * width

    if framing.decoder_start is None:
        place("decoder", first, len(framing.prefix), ids.shape[1])
        if side == "left":
            arrays["position_ids"] = np.maximum(mask.cumsum(axis=1) - 1, 0)
    else:
        if side == "left":
            raise SourceError("an encoder-decoder model is padded on the right only: padding on the left uses up expert capacity")
        start = framing.decoder_start
        decoder_ids, decoder_mask, decoder_first = _padded([[start, *ids.tolist()] for ids in tokens], framing.pad, side)
        arrays |= {"decoder_input_ids": decoder_ids, "decoder_attention_mask": decoder_mask}
        place("encoder", first, len(framing.prefix), ids.shape[1])
        place("decoder", decoder_first, 1, decoder_ids.shape[1])
    column = [np.full(len(where), document.document) for document, where in zip(documents, kept)]
    n_pads = sum(int((array == 0).sum()) for name, array in arrays.items() if name.endswith("attention_mask"))
    return ModelBatch({name: torch.from_numpy(array).to(device) for name, array in arrays.items()}, rows, n_rows, n_pads,
                      np.concatenate(column).astype(np.int32), np.concatenate(kept).astype(np.int32),
                      np.concatenate([ids[where] for ids, where in zip(tokens, kept)]).astype(np.int32))
