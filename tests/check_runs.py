"""Check runs of the playbook, as Ansible prints them: samples, and what is made of them."""

from __future__ import annotations

import json
from typing import Any

from tests.verify import check_mode
from tests.verify.check_mode import Check
from tests.verify.difference import Difference

HIDDEN = "whsec_that_nobody_may_read"
NGINX = "/srv/clone/roles/nginx/tasks/configure.yml:32"


def hide(text: str) -> str:
    return text.replace(HIDDEN, "***")


def event(
    result: dict[str, Any], name: str = "nginx : configure | Settings", path: str = NGINX, **others: object
) -> str:
    """Return an event as ansible.posix.jsonl prints it."""
    task = {"name": name, "path": path, "id": "0", "duration": {}}
    return json.dumps({"_event": "v2_runner_on_ok", "hosts": {"web-1": result}, "task": task} | others)


END = json.dumps({"_event": "v2_playbook_on_stats", "stats": {"web-1": {"changed": 1}}})


def read(*lines: str, status: int = 0) -> Check:
    return check_mode.read("\n".join([*lines, END]), status, hide)


def only(*lines: str) -> Difference:
    (found,) = read(*lines).differences
    return found


# As Ansible 2.19 gives them, shortened to what is read.
TEMPLATE = {
    "action": "ansible.builtin.template",
    "changed": True,
    "diff": [
        {
            "before_header": "/etc/nginx/molam.conf",
            "before": "user www-data;\nserver_tokens on;\n",
            "after_header": "/root/.ansible/tmp/ansible-local-20266e8_tdc0l/tmpacrkf6rh/main.conf.j2",
            "after": "user www-data;\nserver_tokens off;\n",
        }
    ],
    "invocation": {"module_args": {"dest": "/etc/nginx/molam.conf", "mode": "0644"}},
}
