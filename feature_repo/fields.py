"""Feast's fields and types from the features of `contracts`."""

from feast import Field
from feast.types import Array, Float32, Int64, String

from contracts.features import DType, View, of_view

TYPES = {
    DType.float32: Float32,
    DType.int64: Int64,
    DType.string: String,
    DType.list_int64: Array(Int64),
    DType.list_string: Array(String),
}


def fields_of(view: View) -> list[Field]:
    """A field for each feature of the view, with its meaning."""
    return [
        Field(
            name=feature.name,
            dtype=TYPES[feature.dtype],
            description=feature.meaning,
            tags={"ranked": str(feature.ranked).lower()},
        )
        for feature in of_view(view.name)
    ]


def computed_fields_of(view: View) -> list[Field]:
    """The fields of an on-demand view, bare: Feast takes a field with a description for another
    one than the field it infers from the function, and refuses the view."""
    return [Field(name=feature.name, dtype=TYPES[feature.dtype]) for feature in of_view(view.name)]


def tags_of(view: View) -> dict[str, str]:
    """The group, whether late rows are hidden and, where fields have no room for them, meanings."""
    meanings = {feature.name: feature.meaning for feature in of_view(view.name)}
    if view.on_demand:
        return {"group": view.group.value, **meanings}
    return {"group": view.group.value, "as_known": str(view.as_known).lower()}
