"""Lets `python -m molam_webhook` run the command line."""

from molam_webhook.cli import main

main()
