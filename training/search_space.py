"""What may be searched, and the files that a search reads and writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from contracts.errors import UsageError
from contracts.rules import each_once
from contracts.tables import LABEL_KINDS

LABEL_WEIGHT = "label_weight."
"""Before the name of a kind of label (`contracts.tables.LABEL_KINDS`): its weight."""


class Range(BaseModel):
    """Numbers from low to high, both included; whole ones where the parameter's are."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ascends(self) -> Range:
        if self.low >= self.high or (self.log and self.low <= 0):
            below = "above 0 and below" if self.log else "below"
            raise ValueError(
                f"low {self.low:g} and high {self.high:g} are no range: low has to be {below} high"
            )
        return self


Value = StrictBool | StrictInt | Annotated[float, Strict(), AllowInfNan(False)]
"""Of a parameter of LightGBM that may be searched."""
Choices = Annotated[list[Value], Field(min_length=1)]
Space = dict[str, Range | Choices]


class Limits(NamedTuple):
    """What a parameter may be: numbers from least to most, whole ones, or true and false."""

    least: float
    most: float
    kind: type[float] | type[int] | type[bool] = float

    def allow(self, value: float) -> bool:
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        kinds = (int,) if self.kind is int else (int, float)
        return isinstance(value, kinds) and self.least <= value <= self.most

    def __str__(self) -> str:
        if self.kind is bool:
            return "true or false"
        what = "a whole number" if self.kind is int else "a number"
        return f"{what} from {self.least:g} to {self.most:g}"


_SHARE, _FLAG = Limits(0.01, 1), Limits(0, 1, bool)
_ANY, _COUNT = Limits(0, 1e6), Limits(1, 100_000, int)
SEARCHED: Mapping[str, Limits] = {
    "bagging_fraction": _SHARE, "bagging_freq": Limits(0, 1000, int), "extra_trees": _FLAG,
    "feature_fraction": _SHARE, "feature_fraction_bynode": _SHARE, "lambda_l1": _ANY,
    "lambda_l2": _ANY, "lambdarank_norm": _FLAG, "lambdarank_truncation_level": _COUNT,
    "learning_rate": Limits(1e-4, 10), "max_bin": Limits(2, 65_535, int),
    "max_depth": Limits(-1, 1000, int), "min_data_in_bin": _COUNT, "min_data_in_leaf": _COUNT,
    "min_gain_to_split": _ANY, "min_sum_hessian_in_leaf": _ANY, "num_leaves": Limits(2, 4096, int),
    "path_smooth": _ANY,
}  # fmt: skip
"""LightGBM's parameters that may be searched: neither the export nor the proof of parity relies on
them, and its aliases are not among them."""
WEIGHT = Limits(1e-3, 1e3)
"""Of a kind of label."""
SPACE: Space = {
    "learning_rate": Range(low=0.02, high=0.2, log=True),
    "num_leaves": Range(low=7, high=31),
    "min_data_in_leaf": Range(low=20, high=400, log=True),
    "feature_fraction": Range(low=0.2, high=0.9),
    "bagging_fraction": Range(low=0.5, high=1.0),
    "lambda_l2": Range(low=0.1, high=50.0, log=True),
    "lambdarank_truncation_level": Range(low=15, high=60),
    "max_bin": [63, 127],
    "label_weight.cart": [1.0, 1.5, 2.0, 4.0],
    "label_weight.purchase": [1.0, 1.5, 2.0, 4.0],
}
"""What is searched where no file says otherwise."""


_EXAMPLE = '{"num_leaves": {"low": 7, "high": 31}, "max_bin": [63, 127]}'


def read_space(path: Path | None) -> Space:
    """A JSON object: parameter to {low, high, log} or to a list of values. UsageError says what is
    wrong with it."""
    if path is None:
        return SPACE
    what = f"--space {path}"
    names = [*SEARCHED, *(f"{LABEL_WEIGHT}{kind}" for kind in LABEL_KINDS)]
    try:
        given = json.loads(path.read_bytes(), object_pairs_hook=each_once)
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{what}: no JSON: {error}; expected {_EXAMPLE}") from None
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from None
    if not isinstance(given, dict) or not given:
        raise UsageError(
            f"{what}: names no parameter; expected {_EXAMPLE}; there are {', '.join(sorted(names))}"
        )
    _check_names(what, given, names)
    return {name: _checked(f"{what}: {name}", name, value) for name, value in given.items()}


def _checked(what: str, name: str, given: Any) -> Range | list[Any]:
    kind: Any = Range if isinstance(given, dict) else Choices
    try:
        of: Range | list[Any] = TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        raise UsageError(f"{what}: {_first(error)}; expected {_EXAMPLE}") from None
    values = [of.low, of.high] if isinstance(of, Range) else of
    whole = limits_of(name).kind is int and isinstance(of, Range)
    _check_values(what, name, [int(v) if whole and v == int(v) else v for v in values])
    return of


def limits_of(name: str) -> Limits:
    """Of a parameter, or the weight of a kind of label."""
    return WEIGHT if name.startswith(LABEL_WEIGHT) else SEARCHED[name]


def _check_values(what: str, name: str, values: Iterable[Any]) -> None:
    limits = limits_of(name)
    if wrong := [value for value in values if not limits.allow(value)]:
        raise UsageError(f"{what}: {json.dumps(wrong[0])} came, expected {limits}")


def _first(error: ValidationError, whole: str = "") -> str:
    """Where what is wrong first. whole: what to name where it is no part."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if re.fullmatch(r"[\w.]+", str(part)))
    return ": ".join(part for part in (place or whole, str(first["msg"])) if part)


def _check_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    if wrong := sorted(set(given) - set(known)):
        raise UsageError(
            f"{what}: {', '.join(wrong)} cannot be searched; there are {', '.join(sorted(known))}"
        )


class _File(BaseModel):
    """What a search writes."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    ranker: dict[str, Value]
    label_weights: dict[str, float]


def read_found(path: Path | None) -> dict[str, Any]:
    """`ranker` and `label_weights` of a file that a search wrote; empty without one."""
    if path is None:
        return {}
    try:
        found = _File.model_validate_json(path.read_bytes()).model_dump()
    except OSError as error:
        raise UsageError(f"--parameters {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise UsageError(
            f"--parameters {path} is no result of a search: {_first(error, 'the file')}; expected an object"
            " with ranker and label_weights, as ./nextclick search --out writes it"
        ) from None
    _check_names(f"--parameters {path}: ranker", found["ranker"], SEARCHED)
    _check_names(f"--parameters {path}: label_weights", found["label_weights"], LABEL_KINDS)
    for part, prefix in (("ranker", ""), ("label_weights", LABEL_WEIGHT)):
        for name, value in found[part].items():
            _check_values(f"--parameters {path}: {part}.{name}", prefix + name, [value])
    return found


def split(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Parameters of a trial as those of LightGBM and the weights of labels."""
    weights = {
        name.removeprefix(LABEL_WEIGHT): value
        for name, value in parameters.items()
        if name.startswith(LABEL_WEIGHT)
    }
    rest = {name: value for name, value in parameters.items() if not name.startswith(LABEL_WEIGHT)}
    return {"ranker": rest, "label_weights": weights}
