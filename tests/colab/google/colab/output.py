"""Colab's switch for widgets that are not ipywidgets' own; anywidget throws it when it sees this module."""


def enable_custom_widget_manager() -> None:
    """Here there is no browser to tell."""
