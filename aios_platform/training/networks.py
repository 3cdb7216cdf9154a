"""Networks for tabular data. All preprocessing is part of the network, and so of its export.

A numerical feature enters twice: standardised, and as its normal score, by a piecewise-linear map
through quantiles of the training rows. The second is the piecewise-linear encoding of Gorishniy,
Rubachev and Babenko (2022, "On Embeddings for Numerical Features in Tabular Deep Learning") with
its components summed to one number, which keeps the first layer small. A missing value lies in
the middle and lights an indicator of its own.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from aios_platform.training.encoding import Encoding

LARGEST_EMBEDDING = 16
CHUNK = 8192


def embedding_width(cardinality: int) -> int:
    """Width of the embedding of a categorical feature: min(16, round(1.6 · n^0.56)).

    The rule of thumb of fastai's tabular learner, with a lower ceiling.
    """
    return min(LARGEST_EMBEDDING, round(1.6 * float(cardinality**0.56)))


class NumericalEncoding(nn.Module):  # type: ignore[misc]
    """Raw numerical features to what the first layer takes; without anything to learn."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        features = len(encoding.knots)
        intervals = max((edges.size - 1 for edges in encoding.knots), default=1)
        # Padding intervals have rate and rise 0, so they add nothing.
        left, rate, rise = np.zeros((3, features, intervals), dtype=np.float32)
        for row, (edges, scores) in enumerate(zip(encoding.knots, encoding.scores, strict=True)):
            for column, (low, high) in enumerate(pairwise(edges)):
                left[row, column] = low
                rate[row, column] = 1 / (high - low)
                rise[row, column] = scores[column + 1] - scores[column]
        constants = {
            "low": np.array([edges[0] for edges in encoding.knots], dtype=np.float32),
            "high": np.array([edges[-1] for edges in encoding.knots], dtype=np.float32),
            "lowest": np.array([scores[0] for scores in encoding.scores], dtype=np.float32),
            "center": encoding.center,
            "scale": 1 / encoding.scale,
            "left": left,
            "rate": rate,
            "rise": rise,
            "indicated": np.flatnonzero(encoding.missing),
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(value))
        self.width = 2 * features + int(encoding.missing.sum())

    def forward(self, raw: Tensor) -> Tensor:
        """Encode.

        Args:
            raw: Shape (n, f), float32, missing as NaN.

        Returns:
            Shape (n, width), float32, finite.
        """
        absent = torch.isnan(raw)
        bounded = torch.clamp(torch.where(absent, self.low, raw), self.low, self.high)
        filled = ((bounded.unsqueeze(2) - self.left) * self.rate).clamp(0, 1)
        score = self.lowest + (filled * self.rise).sum(dim=2)
        standard = (bounded - self.center) * self.scale
        zero = torch.zeros_like(score)
        return torch.cat(
            [
                torch.where(absent, zero, score),
                torch.where(absent, zero, standard),
                absent.index_select(1, self.indicated).float(),
            ],
            dim=1,
        )

    def encode(self, raw: NDArray[np.float32]) -> Tensor:
        """Encode many rows in chunks, so that the intermediate values stay small."""
        encoded = torch.empty((len(raw), self.width), dtype=torch.float32)
        with torch.inference_mode():
            for start in range(0, len(raw), CHUNK):
                part = slice(start, start + CHUNK)
                encoded[part] = self(torch.from_numpy(raw[part]))
        return encoded


class EmbeddingMLP(nn.Module):  # type: ignore[misc]
    """Embeddings of the categorical features beside the encoded numerical ones, then an MLP.

    Args:
        numerical: Width of the encoded numerical features.
        cardinalities: Number of codes per categorical feature.
        hidden: Widths of the hidden layers.
        dropout: Share of hidden units dropped in training.
    """

    def __init__(
        self,
        numerical: int,
        cardinalities: Sequence[int],
        hidden: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(n, embedding_width(n)) for n in cardinalities)
        width = numerical + sum(embedding_width(n) for n in cardinalities)
        layers: list[nn.Module] = []
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, encoded: Tensor, codes: Tensor) -> Tensor:
        """Logits.

        Args:
            encoded: Shape (n, numerical), float32.
            codes: Shape (n, c), int64.

        Returns:
            Shape (n,), float32.
        """
        embedded = [table(codes[:, index]) for index, table in enumerate(self.embeddings)]
        logits: Tensor = self.layers(torch.cat([encoded, *embedded], dim=1))
        return logits.squeeze(1)


class CalibratedEnsemble(nn.Module):  # type: ignore[misc]
    """The whole model: raw features in, probability out.

    Args:
        encoding: The fitted encoding of the numerical features.
        members: The trained networks; their logits are averaged.
        slope: Platt slope.
        intercept: Platt intercept.
    """

    def __init__(
        self,
        encoding: NumericalEncoding,
        members: Sequence[nn.Module],
        slope: float,
        intercept: float,
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.members = nn.ModuleList(members)
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float32))
        self.register_buffer("intercept", torch.tensor(intercept, dtype=torch.float32))

    def forward(self, raw: Tensor, codes: Tensor) -> Tensor:
        """Probabilities.

        Args:
            raw: Shape (n, f), float32, missing as NaN.
            codes: Shape (n, c), int64.

        Returns:
            Shape (n,), float32.
        """
        encoded = self.encoding(raw)
        logits = torch.stack([member(encoded, codes) for member in self.members]).mean(dim=0)
        return torch.sigmoid(logits * self.slope + self.intercept)
