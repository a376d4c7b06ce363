#!/bin/sh
# Installs what lies beside this script: PREFIX=/usr/local DESTDIR= ./install.sh
set -eu
prefix=${PREFIX:-/usr/local}
target=${DESTDIR:-}$prefix
cd "$(dirname "$0")"
if [ ! -x bin/mobula ]; then
  echo "There is no bin/mobula beside this script: run the one of an unpacked archive, or make install." >&2
  exit 1
fi
umask 022
find bin share -type f | while read -r file; do
  mkdir -p "$target/$(dirname "$file")"
  # In place of a tool that may run: into another file, which then gets the name.
  cp "$file" "$target/$file.new"
  mv "$target/$file.new" "$target/$file"
done
chmod 755 "$target/bin/mobula"
# Where systemd looks for units depends on nothing but this.
units=${DESTDIR:-}/etc/systemd/system
case $prefix in
/usr) units=${DESTDIR:-}/usr/lib/systemd/system ;;
/usr/local) units=${DESTDIR:-}/usr/local/lib/systemd/system ;;
*) units=$target/share/mobula ;;
esac
mkdir -p "$units"
sed "s|@PREFIX@|$prefix|" share/mobula/mobula.service >"$units/mobula.service.new"
mv "$units/mobula.service.new" "$units/mobula.service"
echo "Installed in $target: $("$target/bin/mobula" --version)"
