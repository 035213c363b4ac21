# Toono's everyday commands. `make up` shows a working edge; `make test` checks everything.

CARGO ?= cargo
TOONO := target/release/toono

.PHONY: build edge up down test check bench system-packages test-packages

# Just what building and running need.
system-packages:
	@scripts/install-packages gcc busybox-static

test-packages:
	@scripts/install-packages gcc busybox-static iproute2 curl etcd-server docker-registry faketime dnsmasq-base
	@scripts/install-kubectl

build: system-packages
	$(CARGO) build --release --locked -p toono

# A node for small boxes: the same program without its cloud side, a third of the size, in target/edge/toono.
edge: system-packages
	$(CARGO) build --profile edge --locked -p toono --no-default-features

up: build
	$(TOONO) up

down:
	@test -x $(TOONO) || { echo "nothing to stop: $(TOONO) was never built" >&2; exit 0; }
	$(TOONO) down

test: test-packages check
	$(CARGO) test --release --locked --workspace

check: system-packages
	$(CARGO) fmt --all --check
	$(CARGO) xtask tidy
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --release --locked --workspace --no-deps --document-private-items

bench: build
	scripts/bench
