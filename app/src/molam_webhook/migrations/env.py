"""Runs the revisions over the connection, and in the transaction, that `molam_webhook.upgrade` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
