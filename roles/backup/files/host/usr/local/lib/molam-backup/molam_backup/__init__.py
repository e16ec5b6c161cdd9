"""Restores of the database from its backups (molam-restore), and their rehearsal (molam-backup-drill)."""
