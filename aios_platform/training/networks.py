"""The platform's networks, and the contract that a network of one's own keeps.

A network is a class that is made by ``Network(inputs, outputs, training)``: what it takes
(`NetworkInputs`), how many numbers it gives per row, and the declared training, whose `hidden`,
`dropout` and `network_options` it may read. Its `forward` takes the encoded inputs in order and
gives float32 of shape (n, outputs): one logit of a binary model, a logit of each class, or the
value and then the quantiles of a regression, in standard deviations of the label from its mean.
"""

import hashlib
import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from pydantic import Field, ValidationError
from torch import Tensor, nn  # noqa: TID253

from aios_platform.contracts.record import Record
from aios_platform.contracts.training import NETWORKS, Training
from aios_platform.errors import TrainingError
from aios_platform.extensions import Kind, load
from aios_platform.training.tokens import NO_WORD, TextOptions

LARGEST_EMBEDDING = 16


@dataclass(frozen=True)
class NetworkInputs:
    """What the `forward` of a network takes, in this order.

    Attributes:
        numerical: Width of the encoded numericals, float32 (n, numerical); may be 0.
        cardinalities: Number of codes of each categorical, int64 (n, len(cardinalities)).
        vectors: Length of each vector, float32 (n, length) each, standardised.
        texts: How many different numbers the words of each text have, integers (n, tokens) each;
            0 fills a row.
    """

    numerical: int
    cardinalities: tuple[int, ...] = ()
    vectors: tuple[int, ...] = ()
    texts: tuple[int, ...] = ()


def network_class(name: str) -> type[nn.Module]:
    """The class that a declaration's `training.network` names.

    Raises:
        TrainingError: It cannot be imported, or is not a network.
        ExtensionError: The package that adds it cannot be imported.
    """
    if name in NETWORKS:
        own = (EmbeddingMLP, Convolutional, TextEmbedding)
        found: Any = own[NETWORKS.index(name)]
    elif ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise TrainingError(
                f"training.network '{name}' cannot be imported: {type(error).__name__}: {error}",
                remedy="Install its package where the platform runs, or mend it.",
            ) from error
    else:
        found = load(Kind.NETWORK, name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise TrainingError(
            f"training.network '{name}' is {found!r}; expected a class that is a torch.nn.Module.",
            remedy="Name a class that keeps the contract of docs/training.md.",
        )
    return found


def network_source(name: str) -> str:
    """SHA-256 (hex) of the file that a network of one's own is in; "" for the platform's."""
    if name in NETWORKS:
        return ""
    return hashlib.sha256(Path(inspect.getfile(network_class(name))).read_bytes()).hexdigest()


def build_network(inputs: NetworkInputs, outputs: int, training: Training) -> nn.Module:
    """A declared network with fresh weights.

    Raises:
        TrainingError: The network refuses its inputs or options, or does not keep the contract.
        ExtensionError: The package that adds it cannot be imported.
    """
    kind = network_class(training.network)
    try:
        network = kind(inputs, outputs, training)
        with torch.random.fork_rng(), torch.inference_mode():
            answer = network.eval()(*_blank(inputs))
    except TrainingError:
        raise
    except Exception as error:
        raise TrainingError(
            f"The network '{training.network}' cannot be made for {inputs}: "
            f"{type(error).__name__}: {error}",
            remedy="Mend the network; docs/training.md has the contract.",
        ) from error
    shape = tuple(getattr(answer, "shape", ()))
    if shape != (2, outputs):
        raise TrainingError(
            f"The network '{training.network}' gives the shape {shape} for two rows; expected "
            f"(2, {outputs}).",
            remedy="Let it give one number per output and row.",
        )
    return network.train()


def _blank(inputs: NetworkInputs) -> list[Tensor]:
    return [
        torch.zeros((2, inputs.numerical)),
        torch.zeros((2, len(inputs.cardinalities)), dtype=torch.int64),
        *(torch.zeros((2, length)) for length in inputs.vectors),
        *(torch.zeros((2, 4), dtype=torch.int64) for _ in inputs.texts),
    ]


def embedding_width(cardinality: int) -> int:
    """Width of the embedding of a categorical feature: min(16, round(1.6 · n^0.56)).

    The rule of thumb of fastai's tabular learner, with a lower ceiling.
    """
    return min(LARGEST_EMBEDDING, round(1.6 * float(cardinality**0.56)))


class EmbeddingMLP(nn.Module):  # type: ignore[misc]
    """`embedding_mlp`: embeddings beside encoded numericals and vectors, then an MLP.

    Args:
        inputs: What it takes.
        outputs: Numbers per row.
        training: The declared training; `hidden` and `dropout` are used.

    Raises:
        TrainingError: There are texts, which it does not read.
    """

    reads_texts = False

    def __init__(self, inputs: NetworkInputs, outputs: int, training: Training) -> None:
        super().__init__()
        if inputs.texts and not self.reads_texts:
            raise TrainingError(
                f"The network '{training.network}' reads no texts.",
                remedy="Declare `training.network: text_embedding`.",
            )
        self._vectors = len(inputs.vectors)
        cardinalities = inputs.cardinalities
        self.embeddings = nn.ModuleList(nn.Embedding(n, embedding_width(n)) for n in cardinalities)
        width = inputs.numerical + sum(embedding_width(n) for n in cardinalities)
        width += self.further_width(inputs, training)
        layers: list[nn.Module] = []
        for units in training.hidden:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(training.dropout)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, outputs))

    def further_width(self, inputs: NetworkInputs, training: Training) -> int:  # noqa: ARG002
        """Make what reads vectors and texts, and say how many numbers it gives."""
        return sum(inputs.vectors)

    def further(self, vectors: Sequence[Tensor], texts: Sequence[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """What the vectors and texts give, each (n, some width)."""
        return list(vectors)

    def forward(self, encoded: Tensor, codes: Tensor, *rest: Tensor) -> Tensor:
        """Outputs.

        Args:
            encoded: Shape (n, numerical), float32.
            codes: Shape (n, c), int64.
            rest: Vectors, then texts.

        Returns:
            Shape (n, outputs), float32.
        """
        embedded = [table(codes[:, index]) for index, table in enumerate(self.embeddings)]
        others = self.further(rest[: self._vectors], rest[self._vectors :])
        outputs: Tensor = self.layers(torch.cat([encoded, *embedded, *others], dim=1))
        return outputs


class ImageOptions(Record):
    """`training.network_options` of `convolutional`."""

    shape: tuple[int, int, int] = Field(description="Channels, height and width of the image.")
    channels: tuple[int, ...] = Field(
        default=(16, 32), min_length=1, description="Channels of each 3 x 3 convolution."
    )


class Convolutional(EmbeddingMLP):
    """`convolutional`: the first vector is an image; other inputs enter beside what it shows.

    Each convolution is followed by a ReLU and halves height and width, in the manner of LeCun et
    al. (1998, "Gradient-Based Learning Applied to Document Recognition").

    Raises:
        TrainingError: There is no vector, or its length is not that of the image.
    """

    def further_width(self, inputs: NetworkInputs, training: Training) -> int:
        """Make the convolutions."""
        options: ImageOptions = _options(ImageOptions, training)
        channels, height, width = options.shape
        if not inputs.vectors or inputs.vectors[0] != channels * height * width:
            raise TrainingError(
                f"The network 'convolutional' takes an image of {options.shape} from the first "
                f"vector; the vectors have the lengths {inputs.vectors}.",
                remedy="Correct training.network_options.shape, or declare the column as a vector.",
            )
        self._shape = options.shape
        layers: list[nn.Module] = []
        for wanted in options.channels:
            layers += [nn.Conv2d(channels, wanted, 3, padding=1), nn.ReLU()]
            channels = wanted
            if min(height, width) > 1:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        self.image = nn.Sequential(*layers, nn.Flatten())
        return channels * height * width + sum(inputs.vectors[1:])

    def further(self, vectors: Sequence[Tensor], texts: Sequence[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """What the image shows, and the other vectors."""
        return [self.image(vectors[0].reshape(-1, *self._shape)), *vectors[1:]]


class EmbeddedText(TextOptions):
    """`training.network_options` of `text_embedding`."""

    width: int = Field(default=32, ge=1, description="Numbers per word.")
    buckets: int = Field(
        default=16_384, ge=0, description="Embeddings that pairs of words share; 0: no pairs."
    )


class TextEmbedding(EmbeddingMLP):
    """`text_embedding`: the mean embedding of a text's words and of its hashed pairs of words.

    After Joulin et al. (2016, "Bag of Tricks for Efficient Text Classification").

    Raises:
        TrainingError: There is no text.
    """

    reads_texts = True

    def further_width(self, inputs: NetworkInputs, training: Training) -> int:
        """Make the embeddings."""
        if not inputs.texts:
            raise TrainingError(
                "The network 'text_embedding' has no text to read.",
                remedy="Declare a column of type text among features.request, or another network.",
            )
        options: EmbeddedText = _options(EmbeddedText, training)
        self._buckets = options.buckets
        self.words = nn.ModuleList(
            nn.Embedding(numbers, options.width, padding_idx=NO_WORD) for numbers in inputs.texts
        )
        self.pairs = nn.ModuleList(
            nn.Embedding(options.buckets + 1, options.width, padding_idx=NO_WORD)
            for _ in inputs.texts
            if options.buckets
        )
        for table in (*self.words, *self.pairs):
            # Small, so that a rare word says little until it has been learnt from.
            nn.init.normal_(table.weight, std=0.1)
            with torch.no_grad():
                table.weight[NO_WORD] = 0
        return sum(inputs.vectors) + options.width * (len(self.words) + len(self.pairs))

    def further(self, vectors: Sequence[Tensor], texts: Sequence[Tensor]) -> list[Tensor]:
        """The vectors, and the mean embeddings of each text."""
        found = list(vectors)
        for place, text in enumerate(texts):
            words = text.long()
            found.append(_mean(self.words[place], words))
            if self._buckets:
                first, second = words[:, :-1], words[:, 1:]
                # Knuth's multiplicative hash; numbers of words are far below 2^31.
                pair = (first * 2_654_435_761 + second) % self._buckets + 1
                found.append(_mean(self.pairs[place], pair * (second > NO_WORD).long()))
        return found


def _mean(table: nn.Embedding, numbers: Tensor) -> Tensor:
    count = (numbers > NO_WORD).sum(dim=1, keepdim=True).clamp(min=1)
    mean: Tensor = table(numbers).sum(dim=1) / count
    return mean


def _options(kind: type[Any], training: Training) -> Any:
    try:
        return kind.model_validate(training.network_options)
    except ValidationError as error:
        raise TrainingError(
            f"training.network_options of '{training.network}': {error}",
            remedy="Correct the declaration; docs/training.md lists the options.",
        ) from error
