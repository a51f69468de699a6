"""The bundled checkpoint: how its scenes are composed, and how it is trained and measured."""
