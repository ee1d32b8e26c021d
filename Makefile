# What can be done here: make help.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
CONFIG  ?= /etc/relevo/relevo.toml

TARGET  := $(or $(CARGO_TARGET_DIR),target)
RELEVO  := $(TARGET)/release/relevo
SBINDIR := $(PREFIX)/sbin
UNITDIR := $(PREFIX)/lib/systemd/system
DOCDIR  := $(PREFIX)/share/doc/relevo

# nft, nginx and tcpdump live here, and not every root's PATH has it.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help deps build test sim mutants demo campaign campaign-death soak fuzz bench bench-rtt bench-bulk bench-conn bench-scale bench-options bench-engine bench-failover bench-fastest failover-picture load-rules unload-rules check-rules install uninstall

help: ## this list
	@echo "Relevo keeps TCP connections alive when the server behind them dies. As root:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo "CONFIG=$(CONFIG)  PREFIX=$(PREFIX)  DESTDIR=$(DESTDIR)"

deps: ## install the Debian packages that build, tests and demo lack
	@scripts/deps.sh test

build: ## build the binary in release mode
	@scripts/deps.sh build
	$(CARGO) build --release --locked

test: deps ## unit tests, simulation, and real stacks in network namespaces
	$(CARGO) test --locked --no-fail-fast

sim: ## run SEEDS=10000 drawn schedules FROM=1 around the engine; PCAP=dir keeps captures of one, or of those that fail
	@scripts/number.sh SEEDS "$(SEEDS)" "make sim [SEEDS=n] [FROM=seed] [PCAP=dir]"
	@scripts/number.sh FROM "$(FROM)" "make sim [SEEDS=n] [FROM=seed] [PCAP=dir]"
	@SIM_SEEDS="$(SEEDS)" SIM_FIRST="$(FROM)" PCAP=$(abspath $(PCAP)) $(CARGO) test -q --locked --test sim -- --exact sim >/dev/null

mutants: ## break one rule of the engine at a time: the simulation must catch each
	@$(CARGO) test -q --locked --features mutants --test sim -- --exact mutants::mutants >/dev/null

demo: deps ## freeze the original in the middle of a redis load, an upload and a download
	$(CARGO) build --release --locked --bin relevo --example demo
	@$(TARGET)/release/examples/demo

# Their results go into bench-results; the exit code is the program's own (2 for a wrong RUNS or SEED).
campaign: deps ## real services under load, a fault in each run [RUNS=20] [SEED=s]; result in bench-results
	@$(CARGO) build --release --locked --bin relevo --example campaign
	@RUNS="$(RUNS)" SEED="$(SEED)" $(TARGET)/release/examples/campaign

campaign-death: deps ## kills the engine under load, again and again [RUNS=20] [SEED=s]; result in bench-results
	@$(CARGO) build --release --locked --bin relevo --example campaign
	@RUNS="$(RUNS)" SEED="$(SEED)" $(TARGET)/release/examples/campaign death

soak: ## mixed load and a fault every ten seconds [MINUTES=30] [SEED=s]; figures and a plot in bench-results
	@scripts/number.sh MINUTES "$(MINUTES)" "make soak [MINUTES=n] [SEED=s]"
	@scripts/deps.sh test
	@$(CARGO) build --release --locked --bin relevo --example soak
	@MINUTES="$(MINUTES)" SEED="$(SEED)" $(TARGET)/release/examples/soak

fuzz: ## look for inputs that break something [SECONDS=10] a target [TARGETS="wire engine"]
	@scripts/fuzz.sh "$(or $(SECONDS),10)" $(TARGETS)

# A peer that can't be installed is missing in the tables, with a word why; the bench itself checks what it is told.
define ladder
@scripts/deps.sh test
@scripts/deps.sh bench || echo "note: going on without what could not be installed"
@WHAT="$(or $(1),$(WHAT))" ROUNDS="$(ROUNDS)" SECONDS="$(SECONDS)" WAYS="$(WAYS)" $(CARGO) bench --locked --bench ladder
endef

bench: ## Relevo against routing, NAT, proxies, blind copies: all of the following four; figures and plots in bench-results
	$(call ladder)

bench-rtt: ## round trips of 64 bytes and 1 KB [ROUNDS=5] [SECONDS=1] [WAYS=...]
	$(call ladder,rtt)

bench-bulk: ## one stream up and down, and retransmissions [ROUNDS=5] [SECONDS=1] [WAYS=...]
	$(call ladder,bulk)

bench-conn: ## new connections a second [ROUNDS=5] [SECONDS=1] [WAYS=...]
	$(call ladder,conn)

bench-scale: ## 1 to 10,000 connections at once; memory; an idle engine [ROUNDS=3] [SECONDS=1] [WAYS=...]
	$(call ladder,scale)

bench-options: ## what pinned, real-time, busily polling workers bring to round trips [ROUNDS=5] [SECONDS=1] [WAYS=...]
	$(call ladder,options)

bench-engine: ## the pure engine: time and allocations a packet and a takeover, against the last run on this machine
	@$(CARGO) bench --locked --bench engine

bench-failover: ## what a failure costs the clients [RUNS=5] [KINDS=...] [FLOWS=...] [PARTS=...]; result in bench-results
	@scripts/number.sh RUNS "$(RUNS)" "make bench-failover [RUNS=n] [KINDS=frozen,link-down] [FLOWS=1,100,10000] [PARTS=deaths,calm]"
	@scripts/deps.sh test
	@RUNS="$(RUNS)" KINDS="$(KINDS)" FLOWS="$(FLOWS)" PARTS="$(PARTS)" $(CARGO) bench --locked --bench failover

bench-fastest: deps ## GETs with slow machines: a fixed original against the fastest [SECONDS=60]; result in bench-results
	@SECONDS="$(SECONDS)" $(CARGO) bench --locked --bench fastest

failover-picture: deps ## draw docs/failover.svg from a takeover of this moment
	@PICTURE="$(abspath docs/failover.svg)" $(CARGO) bench --locked --bench failover

load-rules: build ## load the nftables rules for CONFIG
	$(RELEVO) rules load --config $(CONFIG)

unload-rules: build ## unload the nftables rules of CONFIG
	$(RELEVO) rules unload --config $(CONFIG)

check-rules: build ## check CONFIG and show the nftables rules that it leads to
	$(RELEVO) check --config $(CONFIG)
	$(RELEVO) rules show --config $(CONFIG)

install: build ## install binary, systemd unit and documents under DESTDIR/PREFIX
	install -D -m 755 $(RELEVO) $(DESTDIR)$(SBINDIR)/relevo
	install -d $(DESTDIR)$(UNITDIR)
	sed 's#/usr/local/#$(PREFIX)/#g' systemd/relevo.service > $(DESTDIR)$(UNITDIR)/relevo.service
	install -D -m 644 -t $(DESTDIR)$(DOCDIR) README.md LICENSE-MIT LICENSE-APACHE
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/docs docs/*

uninstall: ## remove what install has put there; the configuration stays
	rm -f $(DESTDIR)$(SBINDIR)/relevo $(DESTDIR)$(UNITDIR)/relevo.service
	rm -rf $(DESTDIR)$(DOCDIR)
