#!/usr/bin/env python3
"""Makes man pages of the commands of an executable that uses ArgumentParser: man-pages.py EXECUTABLE FOLDER"""

import json, pathlib, re, subprocess, sys


def escaped(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    # groff reads bytes; other characters have names.
    text = re.sub(r"[^\x00-\x7f]", lambda one: f"\\[u{ord(one[0]):04X}]", text)
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def names(argument):
    shown = []
    for name in argument.get("names") or []:
        shown.append({"long": "--", "short": "-", "longWithSingleDash": "-"}[name["kind"]] + name["name"])
    return shown


def value(argument):
    return argument.get("valueName") or "value"


def described(argument):
    """What the help says, with the default and the values that are possible."""
    parts = [argument.get("abstract") or "", argument.get("discussion") or ""]
    default, values = argument.get("defaultValue"), argument.get("allValues")
    if values:
        parts.append(f"One of {', '.join(values)}.")
    if default and "Default:" not in parts[0]:
        parts.append(f"Default: {default}.")
    return " ".join(part for part in parts if part)


def page(command, path, version, date):
    title = "-".join(path)
    lines = [f'.TH "{title.upper()}" "1" "{date}" "{version}" "User Commands"', ".SH NAME",
             f"{escaped(title)} \\- {escaped(command.get('abstract') or 'a command')}", ".SH SYNOPSIS",
             f".B {escaped(' '.join(path))}"]
    arguments = [one for one in command.get("arguments") or [] if one.get("shouldDisplay", True)]
    for argument in arguments:
        if argument["kind"] == "positional":
            text = f"\\fI{escaped(value(argument))}\\fR"
        else:
            long = (names(argument) or ["--option"])[0]
            for name in names(argument):
                if name.startswith("--"):
                    long = name
            text = f"\\fB{escaped(long)}\\fR"
            if argument["kind"] == "option":
                text += f" \\fI{escaped(value(argument))}\\fR"
        if argument.get("isRepeating"):
            text += " ..."
        lines.append(f"[{text}]" if argument.get("isOptional") else text)
    subcommands = [one for one in command.get("subcommands") or [] if one.get("shouldDisplay", True)]
    if subcommands:
        lines.append("\\fIsubcommand\\fR ...")
    if command.get("discussion"):
        lines += [".SH DESCRIPTION", ".nf", escaped(command["discussion"].strip("\n")), ".fi"]
    if arguments:
        lines.append(".SH OPTIONS")
        for argument in arguments:
            if argument["kind"] == "positional":
                head = f"\\fI{escaped(value(argument))}\\fR"
            else:
                head = ", ".join(f"\\fB{escaped(name)}\\fR" for name in names(argument))
                if argument["kind"] == "option":
                    head += f" \\fI{escaped(value(argument))}\\fR"
            lines += [".TP", head, escaped(described(argument))]
    if subcommands:
        lines.append(".SH SUBCOMMANDS")
        for one in subcommands:
            name = "-".join([*path, one["commandName"]])
            lines += [".TP", f"\\fB{escaped(name)}\\fR(1)", escaped(one.get("abstract") or "")]
    if len(path) > 1:
        lines += [".SH SEE ALSO", f"\\fB{escaped('-'.join(path[:-1]))}\\fR(1)"]
    return "\n".join(lines) + "\n"


def write(command, path, folder, version, date):
    (folder / ("-".join(path) + ".1")).write_text(page(command, path, version, date))
    for one in command.get("subcommands") or []:
        if one.get("shouldDisplay", True) and one["commandName"] != "help":
            write(one, [*path, one["commandName"]], folder, version, date)


def main():
    executable, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    date = sys.argv[3] if len(sys.argv) > 3 else ""
    folder.mkdir(parents=True, exist_ok=True)
    dump = subprocess.run([executable, "--experimental-dump-help"], check=True, capture_output=True, text=True).stdout
    version = subprocess.run([executable, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    command = json.loads(dump)["command"]
    write(command, [command["commandName"]], folder, version, date)


main()
