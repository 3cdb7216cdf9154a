"""Networks that keep the shape of the contract and nothing else of it."""

import torch
from torch import nn


class Crowd(nn.Module):
    """Its answer for a row depends on the mean of the rows beside it."""

    def __init__(self, inputs, outputs, training):
        super().__init__()
        self.layer = nn.Linear(inputs.numerical, outputs)

    def forward(self, numbers, codes):
        return self.layer(numbers - numbers.mean(dim=0))


class Deaf(nn.Module):
    """It ranks rows by a rule of its own, has nothing to learn, and does not use all it has."""

    def __init__(self, inputs, outputs, training):
        super().__init__()
        self.unused = nn.Linear(inputs.numerical, outputs)
        self.answer = nn.Parameter(torch.full((outputs,), 0.5))

    def forward(self, numbers, codes):
        return 0.01 * numbers.sum(dim=1, keepdim=True) + 1e-6 * self.answer


class Steep(nn.Module):
    """Sound but for one enormous weight."""

    def __init__(self, inputs, outputs, training):
        super().__init__()
        self.layer = nn.Linear(inputs.numerical, outputs)
        self.register_buffer("huge", torch.tensor(1e6))

    def forward(self, numbers, codes):
        return self.layer(numbers) + 0 * self.huge
