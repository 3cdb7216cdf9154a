"""Raw features to what a network takes. It is part of the exported graph.

A numerical feature enters twice: standardised, and as its normal score, by a piecewise-linear map
through quantiles of the training rows. The second is the piecewise-linear encoding of Gorishniy,
Rubachev and Babenko (2022, "On Embeddings for Numerical Features in Tabular Deep Learning") with
its components summed to one number, which keeps the first layer small. A missing value lies in
the middle and lights an indicator of its own.

A vector is standardised as a whole; one that is missing is its mean.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from aios_platform.training.encoding import Encoding
from aios_platform.training.networks import NetworkInputs

CHUNK = 8192


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


class InputEncoder(nn.Module):  # type: ignore[misc]
    """Every raw input to what the network takes in its place; nothing to learn.

    Args:
        encoding: What was fitted on the training rows.
    """

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.numerical = NumericalEncoding(encoding)
        self._vectors = tuple((v.center, 1 / v.scale) for v in encoding.vectors)
        self.inputs = NetworkInputs(
            numerical=self.numerical.width,
            cardinalities=encoding.cardinalities,
            vectors=tuple(vector.length for vector in encoding.vectors),
            texts=tuple(words.numbers for words in encoding.texts),
        )

    def forward(self, raw: Tensor, codes: Tensor, *rest: Tensor) -> list[Tensor]:
        """Encode.

        Args:
            raw: Shape (n, f), float32, missing as NaN.
            codes: Shape (n, c), int64.
            rest: Each vector (n, length), float32, missing as NaN; then each text (n, tokens),
                integers.
        """
        return [self.numerical(raw), codes, *self._scaled(rest)]

    def encode(self, raw: Sequence[NDArray[Any]]) -> list[Tensor]:
        """Encode many rows; numericals in chunks, so that intermediate values stay small.

        Args:
            raw: What `forward` takes, as arrays.
        """
        numerical, *rest = raw
        codes, *others = (torch.from_numpy(array) for array in rest)
        with torch.inference_mode():
            return [self.numerical.encode(numerical), codes, *self._scaled(others)]

    def _scaled(self, rest: Sequence[Tensor]) -> list[Tensor]:
        vectors, texts = rest[: len(self._vectors)], rest[len(self._vectors) :]
        scaled = [
            torch.nan_to_num((vector - center) * scale, nan=0.0)
            for vector, (center, scale) in zip(vectors, self._vectors, strict=True)
        ]
        return [*scaled, *texts]
