"""Completions of bash, zsh and fish: static, so that a press of TAB starts no Python."""

from release.tree import strategies

_BASH = r"""# bash completion for zctrace, made from its command line
_zctrace()
{
    local cur=${COMP_WORDS[COMP_CWORD]} path="" option="" word i
    COMPREPLY=()
    [[ $cur == "=" ]] && cur=""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        [[ $word == "=" ]] && continue
        if [[ $option ]]; then
            option=""
            continue
        fi
        case $path:$word in
@WALK@
            *:-*) ;;
@TAKES@
        esac
    done
    case $path:$option in
@VALUES@
    esac
    if [[ $cur == -* ]]; then
        case $path in
@OPTIONS@
        esac
        return
    fi
    case $path in
@ARGUMENTS@
    esac
}
complete -F _zctrace zctrace
"""
_BASH_OFFERS = {
    "file": "compopt -o filenames 2>/dev/null; "
    'mapfile -t COMPREPLY < <(compgen -f -- "$cur"); ',
    "user": 'mapfile -t COMPREPLY < <(compgen -u -- "$cur"); ',
    "command": 'mapfile -t COMPREPLY < <(compgen -c -- "$cur"); ',
    "": "",
}


def _words(words):
    return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(words)}" -- "$cur"); '


def _offers(takes, choices=()):
    if takes == "strategy":
        choices = strategies()
    return _words(choices) if choices else _BASH_OFFERS[takes]


def bash(tree):
    walk, takes, values, options, arguments = [], [], [], [], []
    for command in tree.all():
        path = " ".join(command.words)
        for below in command.commands:
            walk.append(f'"{path}:{below.words[-1]}") path="{" ".join(below.words)}" ;;')
        for option in command.options:
            if not option.value:
                continue
            patterns = "|".join(f'"{path}:{name}"' for name in option.names)
            walk.append(f"{patterns}) option=$word ;;")
            values.append(f"{patterns}) {_offers(option.takes, option.choices)}return ;;")
        names = [name for option in command.options for name in option.names]
        options.append(f'"{path}") {_words(names)};;')
        if any(a.takes == "command" for a in command.arguments):
            # The rest is the command's, which has a completion of its own.
            after = "declare -F _command_offset >/dev/null && _command_offset $i; return"
            takes.append(f'"{path}:"*) {after} ;;')
        if command.commands:
            arguments.append(f'"{path}") {_words(c.words[-1] for c in command.commands)};;')
        elif command.arguments:
            arguments.append(f'"{path}") {_offers(command.arguments[0].takes)};;')
    text = _BASH
    for name, lines, indent in (
        ("WALK", walk, 12),
        ("TAKES", takes, 12),
        ("VALUES", values, 8),
        ("OPTIONS", options, 12),
        ("ARGUMENTS", arguments, 8),
    ):
        text = text.replace(f"@{name}@", "\n".join(" " * indent + line for line in lines))
    return text


_ZSH_OFFERS = {
    "file": "_files",
    "user": "_users",
    "strategy": "({})".format(" ".join(strategies())),
    "": " ",
}


def zsh(tree):
    functions = [_zsh_function(command) for command in reversed(tree.all())]
    return "#compdef zctrace\n# made from zctrace's command line\n\n" + "\n".join(
        [*functions, '_zctrace "$@"\n']
    )


def _zsh_function(command):
    specs = [_zsh_option(option) for option in command.options]
    end = ""
    if command.commands:
        specs += ["'1:command:->command'", "'*::argument:->argument'"]
        named = [f"{c.words[-1]}:{c.summary}" for c in command.commands]
        calls = [f"        {c.words[-1]}) {_zsh_name(c)} ;;" for c in command.commands]
        listed = " ".join(_zsh_quoted(one) for one in named)
        end = "\n".join([
            "    case $state in",
            f"    command) local -a commands=({listed}); _describe command commands ;;",
            "    argument) case $words[1] in",
            *calls,
            "        esac ;;",
            "    esac",
            "",
        ])  # fmt: skip
    for number, argument in enumerate(command.arguments, 1):
        if argument.takes == "command":
            specs += ["'(-):command: _command_names -e'", "'*::argument: _normal'"]
        else:
            place = "*" if argument.repeatable else number
            named = argument.value.lower()
            specs.append(f"'{place}:{named}:{_ZSH_OFFERS[argument.takes]}'")
    options = "-s -S -C" if command.commands else "-s -S"
    return (
        f"{_zsh_name(command)}() {{\n"
        "    local curcontext=$curcontext state line\n"
        "    typeset -A opt_args\n"
        f"    _arguments {options} \\\n        " + " \\\n        ".join(specs) + f"\n{end}}}\n"
    )


def _zsh_name(command):
    return "_" + "_".join(("zctrace", *command.words))


def _zsh_option(option):
    about = option.help
    for special in "\\[]:":
        about = about.replace(special, f"\\{special}")
    value = ""
    if option.value:
        offered = (
            f"({' '.join(option.choices)})" if option.choices else _ZSH_OFFERS[option.takes]
        )
        value = f":{option.names[0].lstrip('-')}:{offered}"
    again = "*" if option.repeatable else f"({' '.join(option.names)})"
    return " ".join(_zsh_quoted(f"{again}{name}[{about}]{value}") for name in option.names)


def _zsh_quoted(text):
    return "'" + text.replace("'", r"'\''") + "'"


_FISH_OFFERS = {
    "file": "-rF",
    "user": "-xa '(__fish_complete_users)'",
    "strategy": "-xa '{}'".format(" ".join(strategies())),
    "": "-x",
}


def fish(tree):
    lines = ["# made from zctrace's command line", "complete -c zctrace -f"]
    for command in tree.all():
        where = _fish_condition(command)
        for below in command.commands:
            about = _fish_quoted(below.summary)
            lines.append(f"complete -c zctrace {where} -a {below.words[-1]} -d {about}")
        for option in command.options:
            names = " ".join(_fish_name(name) for name in option.names)
            value = _fish_value(option)
            about = _fish_quoted(option.help)
            lines.append(f"complete -c zctrace {where} {names}{value} -d {about}")
        for argument in command.arguments:
            if argument.takes == "command":
                offered = "-xa '(__fish_complete_subcommand)'"
            else:
                offered = _FISH_OFFERS[argument.takes].replace("-rF", "-F")
            if offered != "-x":
                lines.append(f"complete -c zctrace {where} {offered}")
    return "\n".join(lines) + "\n"


def _fish_condition(command):
    if not command.words:
        return "-n __fish_use_subcommand"
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
    below = " ".join(c.words[-1] for c in command.commands)
    if below:
        seen += f"; and not __fish_seen_subcommand_from {below}"
    return f"-n '{seen}'"


def _fish_name(name):
    return f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"


def _fish_value(option):
    if not option.value:
        return ""
    if option.choices:
        return f" -xa '{' '.join(option.choices)}'"
    return " " + _FISH_OFFERS[option.takes]


def _fish_quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", r"\'") + "'"
