#!/usr/bin/env python3
"""Lists the public symbols of modules that have no documentation: undocumented.py BUILD-FOLDER MODULE...

BUILD-FOLDER is where a build put Modules/, as .build/release. The exit status is 1 when there are any.
"""

import json, os, pathlib, subprocess, sys, tempfile


def target():
    info = json.loads(subprocess.run(["swiftc", "-print-target-info"], check=True, capture_output=True).stdout)
    return info["target"]["triple"]


def graphs(build, module, folder):
    """The module's own symbols and what it adds to others'."""
    # Modules in C that others show: those that the build made maps for, and those that have one of their own.
    maps = [*pathlib.Path(build).glob("*.build/module.modulemap"),
            *pathlib.Path(build).parent.glob("checkouts/*/Sources/*/include/module.modulemap")]
    options = [option for file in sorted(maps) for option in ("-Xcc", f"-fmodule-map-file={file}")]
    subprocess.run(
        ["swift-symbolgraph-extract", "-module-name", module, "-target", target(), "-I", f"{build}/Modules", *options,
         "-minimum-access-level", "public", "-skip-synthesized-members", "-output-dir", folder], check=True)
    for file in sorted(pathlib.Path(folder).glob(f"{module}*.symbols.json")):
        yield json.loads(file.read_text())


def undocumented(graph):
    for symbol in graph["symbols"]:
        location = symbol.get("location")
        # What the compiler makes by itself has no place in a file.
        if symbol.get("docComment") or location is None or symbol["kind"]["identifier"] == "swift.extension":
            continue
        path = os.path.relpath(location["uri"].removeprefix("file://"))
        yield path, location["position"]["line"] + 1, ".".join(symbol["pathComponents"])


def main():
    build, found = sys.argv[1], set()
    for module in sys.argv[2:]:
        with tempfile.TemporaryDirectory() as folder:
            for graph in graphs(build, module, folder):
                found.update(undocumented(graph))
    for path, line, name in sorted(found):
        print(f"{path}:{line}: {name} is public and has no documentation")
    return 1 if found else 0


sys.exit(main())
