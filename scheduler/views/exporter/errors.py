"""What an exporter says when it cannot do its work."""


class ExportError(Exception):
    """The message says cause and next step."""
