"""Tests that change a host or run playbooks on it: for test hosts alone.

``pytest tests/intrusive --ansible-inventory=molecule/inventory --hosts=ansible://debian13 --ssh-config=.state/ssh/config``
"""
