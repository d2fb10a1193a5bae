"""Runs `openstack` commands as its shell does, one after the other in one process.

Reads a list of words from each line of standard input, and answers each by a line: {"status",
"stdout", "stderr"}. The client is the installed one, unmodified; only its start is paid once.
"""

import contextlib
import io
import json
import sys

from openstackclient import shell


def run(words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            client = shell.OpenStackShell()
            client.stdout, client.stderr = out, err
            status = client.run(words)
        except SystemExit as e:
            status = e.code
    return {"status": status, "stdout": out.getvalue(), "stderr": err.getvalue()}


answers = sys.stdout
for line in sys.stdin:
    answers.write(json.dumps(run(json.loads(line))) + "\n")
    answers.flush()
