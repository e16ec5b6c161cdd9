"""The command line, `molam-webhook`: one module for each group of commands.

Exit status: 0 done, 1 it did not work, 2 wrong usage, 78 (EX_CONFIG) wrong configuration.
"""

import click

from molam_webhook import __version__
from molam_webhook.cli.events import events
from molam_webhook.cli.keys import keys
from molam_webhook.cli.processes import serve, worker
from molam_webhook.cli.reconcile import reconcile
from molam_webhook.cli.selftest import selftest
from molam_webhook.cli.send import send
from molam_webhook.cli.setup import check_config, migrate
from molam_webhook.cli.status import status


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="molam-webhook")
def main() -> None:
    """Receive signed Molam payment webhooks: verify each, store it once, then act on it.

    Something is wrong? Begin with `molam-webhook status`: it says what to do next.

    Settings come from the environment, or from files of the same names (in lower case) in
    $CREDENTIALS_DIRECTORY.
    """


events.add_command(reconcile)
for command in (status, events, send, selftest, keys, check_config, migrate, serve, worker):
    main.add_command(command)
