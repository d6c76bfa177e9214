"""Every command with its arguments and options, as Markdown for the documents."""


def text(tree):
    return "\n\n".join(part for command in tree.all()[1:] for part in _command(command))


def _command(command):
    yield f"## zctrace {' '.join(command.words)}"
    yield _escaped(command.help)
    arguments = [argument for argument in command.arguments if argument.help]
    if arguments:
        rows = ((f"`{argument.value}`", argument.help) for argument in arguments)
        yield _table(("argument", "meaning"), rows)
    yield _table(("option", "meaning"), map(_option, command.options))


def _option(option):
    value = f" {option.value}" if option.value else ""
    names = ", ".join(f"`{name}{value}`" for name in option.names)
    default = f" Default: `{option.default}`." if option.default else ""
    return names, f"{option.help}{default}"


def _table(head, rows):
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(words):
    return words.replace("|", "\\|").replace("<", "&lt;")
