#!/usr/bin/env python3
"""Writes docs/Wire.md from what the tests export and from the sources: wire-document.py EXPORT [--check]

EXPORT is written by the tests with WIRE_GOLDEN=EXPORT, a line for each message: its method, its side, its type, its
bytes. Each is read by the decoder here, which shares nothing with the one of the sources, and is refused if its fields
are not those that its type has in the sources, or if it is not written as compactly as can be. Read the difference
before you commit it: a field that changed its name is another wire.
"""

import pathlib, re, struct, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


# MARK: CBOR, by RFC 8949

def read(data, at=0):
    """The item at an offset as (kind, value), and the offset behind it."""
    first = data[at]
    major, low, at = first >> 5, first & 31, at + 1
    number = low
    if 24 <= low <= 27:
        size = 1 << (low - 24)
        number = int.from_bytes(data[at:at + size], "big")
        at += size
        if major != 7 and number < (24, 1 << 8, 1 << 16, 1 << 32)[low - 24]:
            raise SystemExit(f"a number is written longer than it has to be, at {at}")
    elif low > 27:
        raise SystemExit(f"a length is not given, at {at}")
    if major in (0, 1):
        return ("number", number if major == 0 else -1 - number), at
    if major in (2, 3):
        piece = data[at:at + number]
        if len(piece) < number:
            raise SystemExit("a text is cut short")
        return (("bytes", piece) if major == 2 else ("text", piece.decode())), at + number
    if major == 4:
        items = []
        for _ in range(number):
            item, at = read(data, at)
            items.append(item)
        return ("list", items), at
    if major == 5:
        pairs = []
        for _ in range(number):
            key, at = read(data, at)
            value, at = read(data, at)
            pairs.append((key, value))
        return ("map", pairs), at
    if major == 6:
        item, at = read(data, at)
        return ("tag", (number, item)), at
    if low == 26:
        return ("float", struct.unpack(">f", data[at - 4:at])[0]), at
    if low == 27:
        return ("float", struct.unpack(">d", data[at - 8:at])[0]), at
    if low == 25:
        return ("float", struct.unpack(">e", data[at - 2:at])[0]), at
    return ("simple", {20: "false", 21: "true", 22: "null"}[low]), at


def shown(item):
    """CBOR's diagnostic notation."""
    kind, value = item
    if kind == "bytes":
        return f"h'{value.hex()}'"
    if kind == "text":
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if kind == "list":
        return "[" + ", ".join(map(shown, value)) + "]"
    if kind == "map":
        return "{" + ", ".join(f"{shown(key)}: {shown(one)}" for key, one in value) + "}"
    if kind == "tag":
        return f"{value[0]}({shown(value[1])})"
    return str(value)


# MARK: Sources

def declarations():
    """The fields of each struct, as (name, type, what it is), and what the methods are."""
    structs, methods = {}, {}
    folders = [ROOT / "Sources" / name for name in ("MobulaCore", "MobulaWire", "Mobula", "MobulaBench")]
    for path in sorted(path for folder in folders for path in folder.rglob("*.swift")):
        comment, stack = [], []
        for line in path.read_text().splitlines():
            text = line.strip()
            if text.startswith("///"):
                comment.append(text[3:].strip())
                continue
            if text.startswith("//"):
                continue
            if match := re.match(r"(?:public |package |private |fileprivate )*(struct|enum|class|extension|actor) (\w+)", text):
                stack.append((len(line) - len(line.lstrip()), match[2], match[1]))
            while stack and text == "}" and len(line) - len(line.lstrip()) <= stack[-1][0]:
                stack.pop()
            # Nested ones by their whole name.
            names = [".".join(name for _, name, _ in stack)] if stack else []
            field = re.match(r"(?:public |package |private\(set\) |internal\(set\) |private )*(?:var|let) (.+)", text)
            is_property = stack and stack[-1][2] == "struct" and len(line) - len(line.lstrip()) == stack[-1][0] + 2
            if field and is_property and "static" not in text and "{" not in text:
                if one := re.match(r"(\w+)\s*:\s*([^=]+?)(?:\s*=.*)?$", field[1]):
                    structs.setdefault(names[-1], []).append((one[1], one[2].strip(), " ".join(comment)))
                elif one := re.match(r"(\w+) = (?:true|false)$", field[1]):
                    structs.setdefault(names[-1], []).append((one[1], "Bool", " ".join(comment)))
            if match := re.search(r"RPC(?:Stream)?Method<(.+?)>\(\"([^\"]+)\"\)", text):
                about = " ".join(line for line in comment if line)
                methods[match[2]] = (match[1], about)
            comment = []
    return structs, methods


def roles():
    """Who may call each method, by the table."""
    text = (ROOT / "Sources/MobulaWire/Rights/MethodRights.swift").read_text()
    sets = {"nobody": []}
    for name, content in re.findall(r"static let (\w+): Set<TokenRole> = \[(.*?)\]", text):
        sets[name] = re.findall(r"\.(\w+)", content)
    table = {}
    for method, content in re.findall(r'"([\w.]+)": (\w+|\[[^\]]*\])', text):
        table[method] = sets[content] if content in sets else re.findall(r"\.(\w+)", content)
    return table


# MARK: Document

def fields(name, structs, item, seen):
    """A table of a struct's fields, checked against a value of it."""
    if name not in structs or item[0] != "map":
        return []
    known = [field for field, _, _ in structs[name]]
    present = [key[1] for key, _ in item[1]]
    if unknown := [key for key in present if key not in known]:
        raise SystemExit(f"{name} has no field {unknown[0]} in the sources: {known}")
    if missing := [field for field in known if field not in present]:
        raise SystemExit(f"the value of {name} lacks {missing[0]}: give every field a value in the test")
    seen.add(name)
    lines = ["| field | type | what |", "|---|---|---|"]
    for field, kind, about in structs[name]:
        lines.append(f"| `{field}` | `{kind}` | {about.replace('``', '`').replace('|', '/')} |")
    return lines if len(lines) > 2 else []


def inner(item, structs, kind):
    """The structs of ours that a value of one has in it, each with a value."""
    found = []
    for key, value in item[1]:
        for field, text, _ in structs[kind]:
            if key == ("text", field):
                found += named(value, structs, text, kind)
    return found


def named(item, structs, text, parent=""):
    text = text.strip().rstrip("?")
    if text.startswith("[") and ":" in text:
        # A dictionary: as a map, or as a list of keys and values.
        rest = text[1:-1].split(":", 1)[1]
        values = [value for _, value in item[1]] if item[0] == "map" else item[1][1::2] if item[0] == "list" else []
        return named(values[0], structs, rest, parent) if values else []
    if text.startswith("["):
        return named(item[1][0], structs, text[1:-1], parent) if item[0] == "list" and item[1] else []
    if item[0] != "map":
        return []
    for name in (f"{parent}.{text}", text):
        if structs.get(name):
            return [(name, item)] + inner(item, structs, name)
    return []



def main():
    export = pathlib.Path(sys.argv[1]).read_text().splitlines()
    structs, methods = declarations()
    table = roles()
    golden, order = {}, []
    for line in export:
        method, side, *kind, digits = line.split(" ")
        golden[method, side] = (" ".join(kind), bytes.fromhex(digits))
        if method not in order:
            order.append(method)
    order += sorted(set(methods) - set(order))
    seen, lines = set(), []
    parts = {"head": "What the head answers", "host": "What a host answers", "pod": "What a pod answers",
             "member": "What hosts and pods answer", "driver": "What a driver answers",
             "worker": "What a worker answers", "bench": "What the bench answers itself"}
    types = {}

    def block(method):
        rows = []
        for side in ("bytes", "request", "response", "element"):
            if (method, side) not in golden:
                continue
            kind, data = golden[method, side]
            item, end = read(data)
            if end != len(data):
                raise SystemExit(f"{method} {side} has {len(data) - end} bytes too many")
            if kind.startswith("Array<"):
                kind = f"[{kind[6:-1]}]"
            for one, value in named(item, structs, kind, "Handshake"):
                types.setdefault(one, value)
            rows += [f"{side} {data.hex()}", f"  {shown(item)}"]
        return ["```", *rows, "```", ""] if rows else []

    for part in ["handshake", *parts]:
        if part == "handshake":
            names = [method for method in order if "." not in method]
            lines += ["## The frames of the handshake, and errors", ""]
        else:
            names = [method for method in order if method.split(".")[0] == part]
            lines += [f"## {parts[part]}", ""]
        for method in names:
            lines += [f"### `{method}`", ""]
            if method in methods:
                kinds, about = methods[method]
                request, response = kinds.split(", ", 1)
                if about:
                    lines += [about, ""]
                who = ", ".join(table[method]) or "the cluster token alone"
                lines += [f"`{request}` → `{response}`. Tokens: {who}.", ""]
            lines += block(method)
    lines += ["## Their fields", "",
              "A `?` behind a type: the field may be absent. Identifiers are byte strings of 16 bytes, jobs and sizes "
              "numbers, endpoints and names texts.", ""]
    for name in sorted(types):
        if rows := fields(name, structs, types[name], seen):
            lines += [f"### {name}", "", *rows, ""]
    target = ROOT / "docs/Wire.md"
    old = target.read_text() if target.exists() else ""
    mark = "<!-- From here on Scripts/wire-document.py writes. -->\n"
    if mark not in old:
        raise SystemExit("docs/Wire.md has lost the line from which on it is written")
    begin = old.split(mark)[0]
    new = begin + mark + "\n" + "\n".join(lines).rstrip() + "\n"
    if "--check" in sys.argv:
        sys.exit(0 if new == old else "docs/Wire.md is not what the sources say: run Scripts/wire-document.py")
    target.write_text(new)
    print(f"{len(golden)} messages, {len(methods)} methods, {len(types)} types")


main()
