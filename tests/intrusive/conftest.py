"""Tests that change a host or run playbooks on it: for test hosts alone.

They run as the checks of a host do: ``pytest tests/intrusive`` with the options of molecule/default/verify.yml.
"""
