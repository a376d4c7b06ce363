#!/usr/bin/env bash
# Builds what users install, a tool that needs no Swift, in .build-dist, and packs it:
#   Scripts/dist.sh            mobula-VERSION-linux-ARCHITECTURE.tar.gz, in dist/
#   Scripts/dist.sh --no-build packs what was built before
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=.build-dist
largest=$((40 * 1000 * 1000))

# libsqlite3 and libz as they are in the archive, so that a bare system needs neither.
libraries=$scratch/libraries
mkdir -p "$libraries"
for library in sqlite3 z; do
  file=$(cc -print-file-name="lib$library.a")
  if [[ $file == /* ]]; then ln -sf "$file" "$libraries/"; fi
done
if [[ ${1:-} != --no-build ]]; then
  swift build -c release --static-swift-stdlib --scratch-path "$scratch" --product mobula --disable-local-rpath \
    -Xlinker "-L$PWD/$libraries" -Xlinker --gc-sections
fi
built=$scratch/release/mobula
version=$("$built" --version | awk '{print $2; exit}')
name=mobula-$version-linux-$(uname -m)
root=dist/$name
rm -rf "$root"
mkdir -p "$root"/{bin,share/man/man1,share/bash-completion/completions,share/zsh/site-functions} \
  "$root"/share/{fish/vendor_completions.d,doc/mobula,mobula}
strip --strip-all -o "$root/bin/mobula" "$built"

# Whatever else it is linked with would have to be installed first.
needed=$(readelf -d "$root/bin/mobula" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for library in $needed; do
  case $library in
  libc.so.* | libm.so.* | ld-linux-*.so.* | libstdc++.so.* | libgcc_s.so.* | libz.so.* | libsqlite3.so.*) ;;
  *)
    echo "The tool needs $library, which no package of the system promises: link it statically." >&2
    exit 1
    ;;
  esac
done
if readelf -d "$root/bin/mobula" | grep -qE 'R(UN)?PATH'; then
  echo "The tool looks for libraries in the folders of this machine: link it without an rpath." >&2
  exit 1
fi

for shell in bash zsh fish; do
  case $shell in
  bash) file=bash-completion/completions/mobula ;;
  zsh) file=zsh/site-functions/_mobula ;;
  fish) file=fish/vendor_completions.d/mobula.fish ;;
  esac
  "$root/bin/mobula" --generate-completion-script "$shell" >"$root/share/$file"
done
python3 Scripts/man-pages.py "$root/bin/mobula" "$root/share/man/man1"
gzip -9n "$root"/share/man/man1/*.1
cp Packaging/mobula.service "$root/share/mobula/"
cp LICENSE README.md "$root/share/doc/mobula/"
cp docs/*.md "$root/share/doc/mobula/"
Scripts/notices.sh "$scratch" >"$root/share/doc/mobula/NOTICES"
cp Scripts/install.sh "$root/install.sh"
cp LICENSE "$root/"

archive=dist/$name.tar.gz
# The same bytes for the same build.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct 2>/dev/null || echo 0)" \
  -C dist -cf - "$name" | gzip -9n >"$archive"
size=$(stat -c %s "$archive")
if ((size > largest)); then
  echo "$archive has $size bytes, and may have $largest: see what became so large (readelf -SW $built)." >&2
  exit 1
fi
sha256sum "$archive" | sed "s| dist/| |" >"$archive.sha256"
echo "$archive: $size bytes; needs $(echo $needed)"
