"""Receiver of signed Molam payment webhooks."""

from importlib.metadata import version

__version__ = version("molam-webhook")
