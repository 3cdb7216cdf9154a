"""FastAPI with ONNX Runtime, as one would write it first."""

import sys
from typing import Annotated

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from session import load, score

app = FastAPI()
session = load()


class Row(BaseModel):
    """One row."""

    features: Annotated[list[float], Field(min_length=20, max_length=20)]


class Answer(BaseModel):
    """Its answer."""

    probability: float


@app.post("/predict")
async def predict(row: Row) -> Answer:
    """Score a row."""
    return Answer(probability=score(session, [row.features])[0])


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
