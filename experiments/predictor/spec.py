"""What is declared of a predictor: its size, how long it learns, and whether layers see one another."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from experiments.specs import Frozen, Positive, Share, refused

EXECUTION = frozenset({"device", "processes"})  # where and how it runs, not what is learnt
CHOICE_OF_TOKENS = frozenset({"source_tokens"})  # shows in the digest of the documents


class PredictorSpec(Frozen):
    """A causal transformer over (token, layer) slots; 78,000 parameters at 4 layers of 16 experts. docs/predictor.md: how these were chosen.

    context_tokens: a prediction depends on at most so many tokens before its own, over all blocks together.
    batch: tokens of a step. set_weight: of the choices after the first in the loss. held_out: share of the source's documents that the
    learning curve is measured on. cross_layer_attention: False predicts a layer from its own past alone. source_tokens: at most so many
    of a source are learnt from, in whole documents.
    """

    hidden: Positive = 52
    heads: Positive = 4
    blocks: Positive = 2
    context_tokens: Annotated[int, Field(ge=2)] = 16
    epochs: Positive = 12
    batch: Positive = 256
    lr: Annotated[float, Field(gt=0)] = 1e-2
    set_weight: Annotated[float, Field(ge=0)] = 0.5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    held_out: Share = 0.15
    cross_layer_attention: bool = True
    source_tokens: Positive = 25_000
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    processes: Positive = 1

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden % self.heads:
            raise refused(f"hidden = {self.hidden} is no multiple of heads = {self.heads}", "make every head equally wide")
        if self.context_tokens % self.blocks:
            raise refused(f"context_tokens = {self.context_tokens} is no multiple of blocks = {self.blocks}",
                          "let every block look back an equal share of the context")
        return self

    @property
    def reach(self) -> int:
        """Tokens that attention of one block spans, the token's own among them."""
        return self.context_tokens // self.blocks

    @property
    def learnt(self) -> dict[str, object]:
        """The fields that decide what is learnt from given documents."""
        return self.model_dump(mode="json", exclude=set(EXECUTION | CHOICE_OF_TOKENS))

    def ablated(self) -> Self:
        """The same without cross-layer attention."""
        return self.model_copy(update={"cross_layer_attention": False})
