"""Documents packed into rows: positions and who sees whom."""

from __future__ import annotations

import torch

from pretrain_llm.training.cpu import document_mask
from pretrain_llm.training.documents import document_positions, visible

EOS = 9
ROWS = torch.tensor([[1, 2, EOS, 3, 4, 5], [EOS, EOS, 1, 2, 3, EOS]])
POSITIONS = [[0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 2, 3]]
STARTS = torch.tensor([0, 3, 6, 7, 8, 12], dtype=torch.int32)  # in both rows, and the end


def test_positions_start_anew_after_each_end_of_text_and_each_row() -> None:
    assert document_positions(ROWS, EOS).tolist() == POSITIONS


def test_visible_is_what_comes_before_in_the_same_document() -> None:
    seen = visible(document_positions(ROWS, EOS))
    assert seen.shape == (2, 1, 6, 6)
    assert seen[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]


def test_document_mask_of_offsets_is_the_one_of_positions() -> None:
    mask = document_mask(STARTS, batch=2, length=6)
    assert mask is not None
    assert torch.equal(mask, visible(torch.tensor(POSITIONS)))


def test_document_mask_of_one_document_a_row_is_plain_causal() -> None:
    assert document_mask(torch.tensor([0, 6, 12]), batch=2, length=6) is None
