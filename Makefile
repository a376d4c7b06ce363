# make demo   installs what is missing, builds, and runs the comparison on a 128 MB model
# make test   builds everything and runs all tests
# make test-long TESTS=  tests that take hours in all: heads killed, networks cut, chaos; or those that are named
# make build  builds alone
# make dist   builds what users install, linked with all that it needs, as dist/mobula-VERSION-linux-x86_64.tar.gz
# make install PREFIX=/usr/local DESTDIR=  installs that
# make docs   the reference of the API in Swift, in dist/docs
# make compare-s3  downloads a model from S3 with Mobula, boto3, aws s3 cp and s5cmd, in turn
# make compare-s3-hosts  brings many small objects from S3 to several hosts at once

# One set of flags, so that nothing is compiled twice: tests reach into modules of the very build that users get.
SWIFT_FLAGS := -c release -Xswiftc -enable-testing
MOBULA := .build/release/mobula

PREFIX := /usr/local
DESTDIR :=

.PHONY: build demo test test-long dist check-dist install docs compare-s3 compare-s3-hosts setup environment demo-environment format clean

build: setup
	swift build $(SWIFT_FLAGS) --product mobula

demo: build demo-environment
	$(MOBULA) bench --size 128MB --json results/demo.json

test: setup environment
	Scripts/test.sh $(SWIFT_FLAGS)

test-long: setup environment
	SWIFT_FLAGS="$(SWIFT_FLAGS)" Scripts/test-long.sh $(TESTS)

dist: setup
	@Scripts/dist.sh

check-dist: dist
	@Scripts/check-dist.sh dist/*.tar.gz

install: dist
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" dist/mobula-*/install.sh

docs: setup
	@Scripts/docs.sh dist/docs $(SWIFT_FLAGS)

compare-s3: build
	@Scripts/python-environment.sh .venv compare
	.venv/bin/python Benchmarks/S3Clients/compare.py

compare-s3-hosts: build
	@Scripts/python-environment.sh .venv compare
	.venv/bin/python Benchmarks/S3Clients/hosts.py

setup:
	@Scripts/setup.sh
	@mkdir -p results

environment:
	@Scripts/python-environment.sh .venv tests

demo-environment:
	@Scripts/python-environment.sh .venv demo

format:
	swift format -i -r Sources Tests Benchmarks Plugins Snippets Package.swift

clean:
	rm -rf .build .build-dist .venv dist results
