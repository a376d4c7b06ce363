#!/bin/sh
# Writes Commit.swift, with the commit of the checkout in the first folder, into the second one; only if it changed, so
# that nothing is compiled anew for it.
commit=$(git -C "$1" describe --always --abbrev=7 --exclude='*' --dirty=-modified 2>/dev/null) || commit=
printf '%s\n' "$commit" | grep -qE '^[0-9a-f]{7,40}(-modified)?$' || commit=
text="/// The commit that this was built from; empty outside of a checkout.
let builtCommit = \"$commit\""
mkdir -p "$2"
[ -f "$2/Commit.swift" ] && [ "$(cat "$2/Commit.swift")" = "$text" ] || printf '%s\n' "$text" >"$2/Commit.swift"
