"""Text to numbers of words, by the same ONNX operators in training and wherever the model runs.

A word is a run of letters, digits and the signs `$`, `!` and `%`; ASCII letters lose their case.
Words of the vocabulary have numbers from 2; every other word is 1; 0 fills the rest of the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from aios_platform.contracts.record import Record
from aios_platform.errors import TrainingError

WORD = r"[\pL\pN$!%]+"
FIRST_WORD, UNKNOWN_WORD, NO_WORD = 2, 1, 0
CHUNK = 1024
CONTRIB = "com.microsoft"
OPSET = 20


class TextOptions(Record):
    """What `training.network_options` may say about texts."""

    tokens: int = Field(default=256, ge=1, le=8192, description="Words of a text that are read.")
    vocabulary: int = Field(default=20_000, ge=1, description="Most words with a number.")
    min_documents: int = Field(default=3, ge=1, description="Texts that a word must be in.")


def text_options(options: dict[str, Any]) -> TextOptions:
    """Those of a network's options that are about texts.

    Raises:
        TrainingError: One is out of its range.
    """
    mine = {name: options[name] for name in TextOptions.model_fields if name in options}
    try:
        return TextOptions.model_validate(mine)
    except ValidationError as error:
        raise TrainingError(
            f"training.network_options: {error}", remedy="Correct the option in the declaration."
        ) from error


@dataclass(frozen=True)
class Words:
    """The words that a text feature's network knows.

    Attributes:
        vocabulary: The words; the number of the i-th is i + 2.
        tokens: Numbers per text.
    """

    vocabulary: tuple[str, ...]
    tokens: int

    @property
    def numbers(self) -> int:
        """How many different numbers there are, `NO_WORD` and `UNKNOWN_WORD` included."""
        return len(self.vocabulary) + FIRST_WORD

    def ids(self, texts: NDArray[np.object_]) -> NDArray[np.int32]:
        """Numbers of the first words of texts.

        Args:
            texts: Shape (n,), strings; "" where there is none.

        Returns:
            Shape (n, tokens).
        """
        found = np.zeros((len(texts), self.tokens), dtype=np.int32)
        session = _session("text", *self.nodes("text", "ids"), kind="INT64")
        for start in range(0, len(texts), CHUNK):
            part = slice(start, start + CHUNK)
            found[part] = session.run(["ids"], {"text": texts[part]})[0]
        return found

    def nodes(self, text: str, ids: str) -> tuple[list[Any], list[Any]]:
        """Nodes and constants that turn `text`, string (n,), into `ids`, int64 (n, tokens)."""
        from onnx import helper, numpy_helper

        constants = {
            f"{ids}.pads": np.array([0, 0, 0, self.tokens]),
            f"{ids}.start": np.array([0]),
            f"{ids}.end": np.array([self.tokens]),
            f"{ids}.axis": np.array([1]),
            f"{ids}.none": np.array(NO_WORD),
        }
        nodes = [
            *_split(text, f"{ids}.words"),
            helper.make_node(
                "LabelEncoder",
                [f"{ids}.words"],
                [f"{ids}.known"],
                domain="ai.onnx.ml",
                keys_strings=["", *self.vocabulary],
                values_int64s=[NO_WORD, *range(FIRST_WORD, self.numbers)],
                default_int64=UNKNOWN_WORD,
            ),
            helper.make_node(
                "Pad", [f"{ids}.known", f"{ids}.pads", f"{ids}.none"], [f"{ids}.padded"]
            ),
            helper.make_node(
                "Slice", [f"{ids}.padded", *(f"{ids}.{n}" for n in ("start", "end", "axis"))], [ids]
            ),
        ]
        return nodes, [
            numpy_helper.from_array(value.astype(np.int64), name)
            for name, value in constants.items()
        ]


def fit_words(texts: NDArray[np.object_], options: TextOptions) -> Words:
    """The words that are in most texts.

    Args:
        texts: Shape (n,), those of the training rows.
        options: How many words, and how rare they may be.
    """
    session = _session("text", _split("text", "words"), [], kind="STRING", output="words")
    seen = []
    for start in range(0, len(texts), CHUNK):
        words = session.run(["words"], {"text": texts[start : start + CHUNK]})[0]
        seen += [word for row in words for word in set(row[: options.tokens])]
    counted = pc.value_counts(pa.array(seen, pa.string())).to_pylist()
    common = sorted(
        (-entry["counts"], entry["values"])
        for entry in counted
        if entry["values"] and entry["counts"] >= options.min_documents
    )
    return Words(tuple(word for _, word in common[: options.vocabulary]), options.tokens)


def _split(text: str, words: str) -> list[Any]:
    """Nodes that turn strings (n,) into words (n, most words), filled with ""."""
    from onnx import helper

    lower = f"{words}.lower"
    return [
        # The locale C is everywhere the same, and in every container.
        helper.make_node(
            "StringNormalizer",
            [text],
            [lower],
            case_change_action="LOWER",
            is_case_sensitive=1,
            locale="C",
        ),
        helper.make_node(
            "Tokenizer",
            [lower],
            [words],
            domain=CONTRIB,
            mark=0,
            mincharnum=1,
            pad_value="",
            tokenexp=WORD,
        ),
    ]


def _session(
    text: str, nodes: Sequence[Any], constants: Sequence[Any], *, kind: str, output: str = "ids"
) -> Any:
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession

    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info(text, TensorProto.STRING, ["rows"])],
        [helper.make_tensor_value_info(output, getattr(TensorProto, kind), ["rows", "words"])],
        initializer=list(constants),
    )
    model = helper.make_model(graph, opset_imports=opsets(texts=True), ir_version=10)
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def words_type(ids: str) -> Any:
    """The type of the words between a text and its `ids`; the checker of ONNX cannot infer it."""
    from onnx import TensorProto, helper

    shape = ["rows", f"{ids}.most"]
    return helper.make_tensor_value_info(f"{ids}.words", TensorProto.STRING, shape)


def opsets(*, texts: bool) -> list[Any]:
    """The operator sets that an exported graph is made of."""
    from onnx import helper

    sets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    return [*sets, helper.make_opsetid(CONTRIB, 1)] if texts else sets
