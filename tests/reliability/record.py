"""A try, and how its result is read. Standard library: used in guests and outside."""

import json


def tried(status, stderr="", result=None, expected=None, left=None, what=""):
    """A command's status and what it said, its result, if there is one, and what was left.

    ``expected`` is what the result must have, as ``judge.of_trace`` takes it.
    """
    return {
        "what": what,
        "status": status,
        "stderr": stderr,
        "result": result,
        "expected": expected or {},
        "left": left or {},
    }


def read(file):
    """The result in a file that ``--json`` has named; ``None`` without one."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {"broken": True}
    evidence = found["evidence"]
    traced = evidence and evidence[0].get("trace")
    return {"evidence": evidence[0]} if traced else {"summary": found["summary"]}
