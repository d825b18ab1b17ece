# Targets for people and CI. "make help" lists them.

GO       ?= go
# Per package, and nothing in the tests bounds time but this. The slowest takes two
# minutes on two idle cores; on a machine that is busy with other work it takes many
# times as long, and that is no fault.
TIMEOUT  ?= 40m
COUNT    ?= 5
FUZZTIME ?= 30s
BENCH    ?= .
BENCHFLAGS ?=
DEMO     ?=
DURATION ?= 2m
RATE     ?= 400
ROUNDS   ?= 500
IMAGES   ?= 5000
FAULTS   ?= 4000
CASE     ?=
STORE    ?=
SEED     ?=
ENGINE   ?=

# The linters are run at a fixed version, fetched and built by the go command. What
# golangci-lint looks for is in .golangci.yml.
GOLANGCI   = $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
ACTIONLINT = $(GO) run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# Modules of their own, for what would make this one's go.mod long.
NESTED = $(patsubst %/go.mod,%,$(shell find . -mindepth 2 -name go.mod | sort))

# Each module is built with the versions in its own go.mod, as its users get it. go.work,
# which takes the highest of all, is for editors and for work across modules.
export GOWORK = off

PLATFORMS = windows/amd64 darwin/arm64 linux/386 linux/arm linux/arm64

# What make test-arm runs: the root, the engines and the middleware, without the
# tests of the root that try everything and know nothing of the processor.
ARM_PACKAGES ?= . ./memory ./bolt ./pebble ./idemhttp ./internal/callback
ARM_FLAGS    ?= -short -skip '^(TestTransitionAgainstModel|TestProtocol.*)$$'

# What make cross does for the root, it does for these, which users import or install; but
# it builds their tests no further than go vet does.
CROSS_NESTED = cmd/idem idemotel idemprom

# What is skipped under the race detector, which finds nothing in it and makes it take six
# times as long (race.Skip), and where it is.
WITHOUT_RACE = Test(Transition.*|Protocol|.*Property|.*Mutants|Power.*|.*Healthy.*|FaultsFlippedBits|Skew.*|Check.*|Damaged.*|Verify.*|RecordsBehind.*|Walk.*|Backup.*|Compact.*|ImportThatEndsEarly.*|Shown.*|Tutorial.*|Guarantees.*|.*Documented|AdminProblems.*|Table.*|Index.*|Expiring.*)
WITHOUT_RACE_IN = ./idemtest . ./internal/robustness ./internal/robustness/oracle ./pebble ./bolt ./memory
# How many random cases each property has under the race detector. Without it there are 100.
RACE_CHECKS = 30
# These take longest, so they begin first.
LONGEST = ./pebble ./internal/robustness ./bolt
# Three on two cores, because they wait for disks.
PACKAGES_AT_A_TIME = 3

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-arm race lint cross cover fuzz bench bench-full microbench crash power backup faults soak tidy cc

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## a payment service that is killed again and again, and its audit (DEMO="-engine pebble")
	$(GO) run ./internal/demo $(DEMO)

# go test vets what it compiles: go vet alone would compile everything once more, without
# the race detector.
# Tests wait for no disk where there is a folder in memory; the tests of make cover, crash and
# faults do. Programs are built where they always are.
test: export GOTMPDIR := $(or $(GOTMPDIR),$(TMPDIR),/tmp)
test: export TMPDIR := $(or $(TMPDIR),$(shell scripts/fastdir.sh))
# A collector that runs less often saves a sixth of the compiler's time, a tenth of the tests'.
test: export GOGC = 300
# The race detector would have each package sleep a second at its end.
test: export GORACE = atexit_sleep_ms=0
test: cc ## every test with the race detector, in random order, and all that go vet looks for
	$(GO) test -p $(PACKAGES_AT_A_TIME) -vet=off -run '^$(WITHOUT_RACE)$$' -timeout $(TIMEOUT) $(WITHOUT_RACE_IN)
	RAPID_CHECKS=$(RACE_CHECKS) $(GO) test -p $(PACKAGES_AT_A_TIME) -race -vet=all -shuffle=on -timeout $(TIMEOUT) $(LONGEST) ./...

test-all: test ## the same, and then each module of its own: the tool, metrics, bench, examples
	@set -e; for m in $(NESTED); do \
		echo "module $$m"; \
		(cd $$m && $(GO) test -race -vet=all -shuffle=on -timeout $(TIMEOUT) ./...); \
	done

race: cc ## the tests COUNT times over, to find what one run does not (COUNT=5)
	$(GO) test -race -shuffle=on -count $(COUNT) -timeout 0 ./...

lint: ## golangci-lint, a tidy go.mod, go.work, and the workflows of .github
	@set -e; for m in . $(NESTED); do \
		echo "module $$m"; \
		(cd $$m && $(GOLANGCI) run && $(GO) mod tidy -diff); \
	done
	@listed=$$($(GO) work edit -json go.work | sed -n 's|.*"DiskPath": "\(.*\)".*|\1|p' | sort); \
	there=$$(find . -name go.mod | sed 's|/go.mod$$||' | sort); \
	[ "$$listed" = "$$there" ] || { echo "make lint: go.work must list these modules:"; echo "$$there"; exit 1; }
	$(ACTIONLINT) -shellcheck= -pyflakes=

cross: ## vet, and build every test, for Windows, macOS, 32-bit x86 and ARM
	@set -e; for p in $(PLATFORMS); do \
		echo "cross $$p"; \
		export CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/}; \
		$(GO) vet ./...; $(GO) test -run '^$$' -exec true ./... >/dev/null; \
		for m in $(CROSS_NESTED); do (cd $$m && $(GO) vet ./...); done; \
	done

test-arm: ## tests of the root, the engines and idemhttp as 32-bit and 64-bit ARM, under qemu-user (ARM_PACKAGES=./bolt ARM_FLAGS=-v)
	@set -e; for p in arm/qemu-arm arm64/qemu-aarch64; do \
		qemu=$${p#*/}; \
		command -v $$qemu >/dev/null || { echo "make test-arm: $$qemu is missing (Debian: apt-get install qemu-user)"; exit 1; }; \
		echo "test $${p%/*}"; \
		CGO_ENABLED=0 GOARCH=$${p%/*} IDEM_TEST_EXEC=$$qemu \
			$(GO) test -exec $$qemu -shuffle=on -timeout $(TIMEOUT) $(ARM_FLAGS) $(ARM_PACKAGES); \
	done

cover: ## coverage of root, engines and internal packages; fails below the bounds
	GO="$(GO)" scripts/cover.sh

fuzz: ## every fuzz target, one after the other, FUZZTIME each (FUZZTIME=30s)
	GO="$(GO)" FUZZTIME="$(FUZZTIME)" scripts/fuzz.sh

# Where the results go, from bench: raw.txt, table.txt, report.html. A second run on a
# day replaces the first one's.
RESULTS = results/$(shell date -u +%F)

bench: ## idem against its limits and its rivals, 5 minutes: a table, a report under bench/results (BENCHFLAGS="-run Get")
	cd bench && $(GO) run . -out $(RESULTS) $(BENCHFLAGS)

bench-full: ## the same with more keys, more rounds and open-loop load: over an hour
	cd bench && $(GO) run . -full -out $(RESULTS)-full $(BENCHFLAGS)

microbench: ## every Go benchmark in the root module (BENCH=regexp)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 0 ./...

# What the robustness tests are told by their environment.
ROBUSTNESS = IDEM_ROBUSTNESS_SEED="$(SEED)" IDEM_ROBUSTNESS_ENGINE="$(ENGINE)"

crash: ## kill stores in their work, ROUNDS times per engine, and judge what is left (ROUNDS=500 SEED=n ENGINE=bolt)
	$(ROBUSTNESS) IDEM_ROBUSTNESS_ROUNDS="$(ROUNDS)" $(GO) test -count=1 -timeout 0 -v -run '^TestCrash' ./internal/robustness

power: ## cut the power of stores, lose what was not synced, and judge IMAGES disks per engine (IMAGES=5000 SEED=n ENGINE=pebble)
	$(ROBUSTNESS) IDEM_ROBUSTNESS_IMAGES="$(IMAGES)" $(GO) test -count=1 -timeout 0 -v -run '^TestPower' ./internal/robustness ./pebble

soak: ## drive stores for DURATION per engine, sample and chart what must not grow, and judge (DURATION=10m ENGINE=bolt RATE=400)
	cd bench && $(GO) run ./soak -duration "$(DURATION)" -engine "$(ENGINE)" -rate "$(RATE)"

backup: ROUNDS = 50
backup: ## back up stores that 16 callers use, ROUNDS times per engine, and judge what is restored (ROUNDS=50 SEED=n ENGINE=bolt)
	$(ROBUSTNESS) IDEM_ROBUSTNESS_ROUNDS="$(ROUNDS)" $(GO) test -count=1 -timeout 0 -v -run '^TestBackup' ./internal/robustness

faults: ## fail every call on files, fill up, stick and slow down disks, and flip bits, FAULTS of each per engine (FAULTS=4000 SEED=n ENGINE=bolt CASE=name)
	$(ROBUSTNESS) IDEM_ROBUSTNESS_FAULTS="$(FAULTS)" IDEM_ROBUSTNESS_CASE="$(CASE)" IDEM_ROBUSTNESS_STORE="$(STORE)" $(GO) test -count=1 -timeout 0 -v -run '^TestFaults|^TestEveryWrite' ./internal/robustness ./pebble

tidy: ## format, and make go.mod and go.sum what the imports need
	@set -e; for m in . $(NESTED); do \
		(cd $$m && $(GOLANGCI) fmt && $(GO) mod tidy); \
	done
	@rm -f go.work.sum; for m in . $(NESTED); do \
		(cd $$m && GOWORK= $(GO) list -deps -test ./... >/dev/null) || exit 1; \
	done

# The race detector is built with cgo, on all but macOS.
cc:
	@cc=$$($(GO) env CC); command -v $${cc%% *} >/dev/null || { \
		echo "make: the race detector needs a C compiler and '$$cc' was not found."; \
		echo "Install one (Debian: apt-get install gcc libc6-dev), or run: go test -shuffle=on ./..."; \
		exit 1; }
