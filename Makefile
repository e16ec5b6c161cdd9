# Thin names for the scripts. `make` alone says what there is.
.DEFAULT_GOAL := help
.PHONY: help up down status setup lock lint format test test-fast molecule verify bench-provision bench-app bench-release bench-recovery release

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

up: ## From this machine as it is to a demo host with its first signed webhook (DEMO_HTTPS_PORT=, MITOGEN=1)
	@scripts/demo up

status: ## What of the demo is there, and how to look further
	@scripts/demo status

down: ## Remove all that `make up` and the tests made
	@scripts/demo down

setup: ## What the playbooks need on this machine, and what the tests need
	@scripts/setup --test

test: ## Every check, the playbooks on real systemd hosts included
	@scripts/test

test-fast: ## The checks that need neither hosts nor a database, within a minute
	@scripts/test --fast

lint: ## Every linter
	@scripts/lint

format: ## Let ruff write the Python files its way
	@.venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format --quiet .

molecule: ## The playbooks on real systemd hosts alone
	@PATH="$(CURDIR)/.venv/bin:$$PATH" molecule test --no-command-borders

verify: ## The security checklist on the hosts of an inventory, as a report; safe while they serve (INVENTORY=production)
	@scripts/verify --inventory=$(or $(INVENTORY),demo)

bench-provision: ## Seconds from a bare host to its first webhook, and of a run that changes nothing
	@.venv/bin/python scripts/bench-provision

bench-release: ## Seconds of a deploy and a rollback, under load
	@.venv/bin/python -m tests.release.bench

bench-recovery: ## Seconds of a restore, what a backup costs those who send, what a killed database and a lost host lose
	@.venv/bin/python -m tests.recovery.bench

bench-app: ## Events a second of the receiver, beside the guide's own stack, nginx alone and PostgreSQL alone
	@scripts/bench-app

lock: ## Write the lock files anew from requirements/*.in and app/pyproject.toml
	@scripts/lock

release: ## For maintainers: commit, tag and build a release, see docs/releasing.md (VERSION=1.2.0, DRY_RUN=1)
	@.venv/bin/python scripts/release $(if $(DRY_RUN),--dry-run) -- "$(VERSION)"
