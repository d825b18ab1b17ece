#!/usr/bin/env bash
# Measures coverage and fails below the bounds: every statement of transition.go,
# and more than 90 % of the root, of engine, of each engine, of ttl, idemhttp, consume and
# idemadmin, of each internal package, and of idemotel and idemprom, which are modules of
# their own. A statement counts when any test of the module runs it: the
# conformance suite run by an engine counts for that engine. Left out are internal/demo,
# which runs in processes of its own, where nothing is measured, and what serves tests
# (formattest, outcomes, race, robustness, selfexec, storetest): what that says when a check
# fails need not run.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
export GOWORK=off
module=$("$go" list -m)

packages=$("$go" list . ./engine ./memory/... ./bolt/... ./pebble/... ./ttl/... ./idemhttp/... ./consume/... ./idemadmin/... ./internal/... | grep -v -e /internal/formattest -e /internal/storetest -e /internal/robustness -e /internal/outcomes -e /internal/demo -e /internal/race -e /internal/selfexec | paste -sd, -)
profile=$(mktemp)
trap 'rm -f "$profile"' EXIT
"$go" test -shuffle=on -timeout 40m -coverpkg="$packages" -coverprofile="$profile" ./... |
	awk -F '\tcoverage: ' '!/^coverage: / { print $1 }' # each binary's own share of it all says nothing
for nested in idemotel idemprom; do
	part=$(mktemp)
	(cd "$nested" && "$go" test -shuffle=on -timeout 40m -coverpkg=./... -coverprofile="$part" ./...) |
		awk -F '\tcoverage: ' '!/^coverage: / { print $1 }'
	tail -n +2 "$part" >>"$profile" # without the mode
	rm -f "$part"
	packages+=,$module/$nested
done

# A line of the profile reads file:from,to statements count; each test binary
# gives its own line for the same statements.
awk -v root="$module" -v packages="$packages" '
	NR == 1 { next } # mode: set
	{
		statements[$1] = $2
		if ($3 > 0) covered[$1] = $2
	}
	END {
		for (block in statements) {
			file = block; sub(/:[^:]*$/, "", file)
			dir = file; sub(/\/[^\/]*$/, "", dir)
			all[dir] += statements[block]; hit[dir] += covered[block]
			if (file == root "/transition.go") { whole += statements[block]; run += covered[block] }
		}
		n = split(packages, names, ",")
		bad = report("transition.go", whole, run, 100)
		for (i = 1; i <= n; i++) {
			name = names[i] == root ? "package idem" : substr(names[i], length(root) + 2)
			bad += report(name, all[names[i]], hit[names[i]], 90)
		}
		if (bad) { print "cover: below its bound: see FAIL above"; exit 1 }
	}
	# report prints one row; the bound 100 is to be met, any other to be passed.
	function report(name, total, covered, bound,   percent, ok) {
		if (total == 0) { printf "%-28s not measured  FAIL\n", name; return 1 }
		percent = 100 * covered / total
		ok = bound == 100 ? covered == total : percent > bound
		printf "%-28s %6.1f %%  %5d of %5d statements%s\n", name, percent, covered, total, ok ? "" : "  FAIL"
		return !ok
	}
' "$profile"
