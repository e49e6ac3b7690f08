"""A GRU whose gradient is written out: a few operations a position, where torch on a CPU records some thirty.

B sequence, S position, r states, 3r: the gates (reset, update, new) beside each other, d width of the input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class SequenceGRU(nn.GRU):
    """nn.GRU of one layer, batch first, from states 0, with its equations and parameters; in training about a third of its time."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__(width, states, batch_first=True)

    def forward(self, inputs_BSd: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """States [B, S, r], and the last one [1, B, r]."""
        if not torch.is_grad_enabled() or inputs_BSd.device.type != "cpu":
            found: tuple[torch.Tensor, torch.Tensor] = super().forward(inputs_BSd)
            return found
        weight_ih, weight_hh, bias_ih, bias_hh = self.all_weights[0]
        states_BSr: torch.Tensor = _Recurrence.apply(linear(inputs_BSd, weight_ih, bias_ih), weight_hh, bias_hh)  # type: ignore[no-untyped-call]
        return states_BSr, states_BSr[None, :, -1]


class _Recurrence(torch.autograd.Function):
    """reset, update = sigmoid(given + U h + c); new = tanh(given_n + reset (U_n h + c_n)); h' = new + update (h - new)."""

    @staticmethod
    def forward(ctx: Any, given_BSG: torch.Tensor, weight_Gr: torch.Tensor, bias_G: torch.Tensor) -> torch.Tensor:
        n, positions, gates = given_BSG.shape
        r = gates // 3
        given, back = given_BSG.transpose(0, 1).contiguous(), weight_Gr.T.contiguous()
        states = given.new_zeros(positions + 1, n, r)  # the first is h_0
        recalled, opened = torch.empty_like(given), given.new_empty(positions, n, 2 * r)
        views = (given[..., : 2 * r], given[..., 2 * r :], recalled, recalled[..., : 2 * r], recalled[..., 2 * r :], opened, opened[..., :r],
                 opened[..., r:], states[:-1], states[1:])
        for given_gates, given_new, all_recalled, gates, recalled_new, both, reset, update, before, after in zip(*(one.unbind() for one in views)):
            torch.addmm(bias_G, before, back, out=all_recalled)
            torch.add(given_gates, gates, out=both).sigmoid_()
            new = torch.addcmul(given_new, reset, recalled_new).tanh_()
            torch.lerp(new, before, update, out=after)
        ctx.save_for_backward(given, weight_Gr, states, recalled, opened)
        return states[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BSr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        given, weight_Gr, states, recalled, opened = ctx.saved_tensors
        positions, n, r = states.shape[0] - 1, states.shape[1], states.shape[2]
        reset, update, recalled_new = opened[..., :r], opened[..., r:], recalled[..., 2 * r :]
        new = torch.addcmul(given[..., 2 * r :], reset, recalled_new).tanh_()
        by_new = (1 - update) * (1 - new**2)  # of h' by the argument of tanh
        by_gates = torch.stack((by_new * recalled_new * reset * (1 - reset), (states[:-1] - new) * update * (1 - update), by_new * reset), dim=2)
        grad_states, grad_recalled = grad_BSr.transpose(0, 1).clone(memory_format=torch.contiguous_format), torch.empty_like(by_gates)
        rows, carried = grad_recalled.view(positions * n, 3 * r), states.new_zeros(n, r)
        views = (grad_states, grad_states[:, :, None], by_gates, grad_recalled, rows.view(positions, n, 3 * r), update)
        for grad, wide, by, into, flat, kept in zip(*(reversed(one.unbind()) for one in views)):
            grad += carried
            torch.mul(by, wide, out=into)
            carried = torch.addmm(grad * kept, flat, weight_Gr)
        grad_given = torch.cat((grad_recalled[:, :, :2].flatten(2), grad_states * by_new), dim=-1)
        return grad_given.transpose(0, 1), rows.T @ states[:-1].reshape(-1, r), rows.sum(dim=0)
