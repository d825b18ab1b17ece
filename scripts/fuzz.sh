#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other: go test -fuzz takes
# one target of one package at a time. FUZZTIME is for each of them.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
fuzztime=${FUZZTIME:-30s}

# go test -list prints the names of a package's targets, then its "ok" line.
list=$("$go" test -list '^Fuzz' ./...)
targets=$(awk '/^Fuzz/ { names[++n] = $1 } $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' <<<"$list")
if [ -z "$targets" ]; then
	echo "fuzz: there is no fuzz target in the tree" >&2
	exit 1
fi
while read -r package target; do
	echo "== $target in $package, $fuzztime"
	"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$package" </dev/null
done <<<"$targets"
