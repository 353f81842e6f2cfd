"""What is wrong with the settings of a plugin."""

__all__ = ["BadSetting"]


class BadSetting(ValueError):
    """A setting that is wrong: where it stands, and what is expected."""
