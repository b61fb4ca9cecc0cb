"""What features are about."""

from feast import Entity, ValueType

from contracts.features import VIEWS

_JOIN_KEYS = {
    entity: key
    for view in VIEWS.values()
    for entity, key in zip(view.entities, view.join_keys, strict=True)
}


def _entity(name: str, meaning: str) -> Entity:
    return Entity(
        name=name,
        join_keys=[_JOIN_KEYS[name]],
        value_type=ValueType.STRING,
        description=meaning,
        owner="nextclick",
    )


session = _entity("session", "A visitor's session, as the shop's site numbers it.")
item = _entity("item", "An item of the shop.")
category = _entity("category", "A category of the shop, the whole text of the catalogue.")
