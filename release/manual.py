"""zctrace(1): every command with all its options, in man's own macros."""

import re

from zctrace import errors
from zctrace._version import version

_HEAD = r"""
.SH NAME
zctrace \- count how often the CPU copies data and how often a program enters the kernel
.SH SYNOPSIS
.B zctrace
.I COMMAND
.RI [ OPTION ]...
.RI [ ARGUMENT ]...
.SH DESCRIPTION
{about}
.PP
{rights}
"""
_RIGHTS = """Commands that measure (run, trace, check, serve, plan) need root, BCC, and a kernel
that can be probed, or QEMU to boot one. The others need neither. A figure that nothing measured
is shown as \u2013 and is never 0."""
_TAIL = r"""
.SH ENVIRONMENT
.TP
.B ZCTRACE_CACHE
The folder for fetched kernels and for what was compiled;
.I /var/cache/zctrace
if not set.
.SH SEE ALSO
.BR strace (1),
.BR perf (1),
.BR bpftrace (8)
"""
_ERROR = re.compile(r"\w+Error +(\d+)   (.+)")
_NEVER_A_COMMAND_S = (errors.SessionError.exit_code, errors.FigureError.exit_code)


def page(tree):
    head = _HEAD.format(about=_text(tree.help), rights=_text(_RIGHTS))
    lines = [f'.TH ZCTRACE 1 "" "zctrace {_text(version())}" "User Commands"{head.rstrip()}']
    lines += _options(tree)
    lines.append(".SH COMMANDS")
    for command in tree.all()[1:]:
        lines += _command(command)
    lines += [".SH EXIT STATUS", *_statuses(), _TAIL.strip()]
    return "\n".join(lines) + "\n"


def _command(command):
    yield f".SS zctrace {_text(' '.join(command.words))}"
    yield rf".B zctrace {_text(' '.join(command.words))}"
    yield rf"\fI{_text(' '.join(_usage(command)))}\fR"
    for paragraph in command.help.split("\n\n"):
        yield from (".PP", _text(paragraph))
    for argument in command.arguments:
        if argument.help:
            yield from (".TP", rf".I {_text(argument.value)}", _text(argument.help))
    yield from _options(command)


def _usage(command):
    yield "[OPTION]..."
    if command.commands:
        yield "[COMMAND]"
    for argument in command.arguments:
        many = "..." if argument.repeatable and argument.takes != "command" else ""
        yield argument.value + many if argument.required else f"[{argument.value}]{many}"


def _options(command):
    for option in command.options:
        value = rf" \fI{_text(option.value)}\fR" if option.value else ""
        names = ", ".join(rf"\fB{_text(name)}\fR" for name in option.names)
        default = f" Default: {option.default}." if option.default else ""
        yield from (".TP", names + value, _text(f"{option.help}{default}"))


def _statuses():
    found = {
        0: "It worked; what was measured passed the self-tests.",
        1: "A fault in zctrace itself.",
    }
    for code, meaning in _ERROR.findall(errors.__doc__):
        if int(code) not in _NEVER_A_COMMAND_S and int(code) > 1:
            found[int(code)] = f"{meaning[0].upper()}{meaning[1:]}."
    found[errors.HUNG_UP] = "The terminal is gone; everything was cleaned up."
    found[errors.INTERRUPTED] = "Interrupted; everything was cleaned up."
    found[errors.TERMINATED] = "Terminated; everything was cleaned up."
    for code, meaning in found.items():
        yield from (".TP", rf".B {code}", _text(meaning))
    yield ".PP"
    yield "trace, check and serve end with the status of a command that fails itself."


def _text(text):
    """As troff shows it: no line of its own begins a request, and a hyphen can be copied."""
    text = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"[^ -~]", lambda found: rf"\[u{ord(found[0]):04X}]", text)
    return rf"\&{text}" if text.startswith((".", "'")) else text
