# The two commands people need are `make demo` and `make test`; both set up what they need first.
python := .venv/bin/python
bin := .venv/bin

.PHONY: demo test test-kernel lint docs-metrics dashboards docs-images proto image-check e2e clean setup setup-dev

demo: setup
	$(bin)/sonde-lab demo

test: setup-dev
	$(bin)/pytest

test-kernel: setup-dev
	SONDE_REQUIRE=kernel $(bin)/pytest tests/kernel

# some minutes on two cores the first time; afterwards only what changed is run again
.PHONY: bench-policy
bench-policy: setup-dev
	$(python) -m bench.policy

lint: setup-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/clang-format --dry-run --Werror bpf/*.c bpf/*.h
	@# generated code must be what `make proto` writes
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	$(python) -m grpc_tools.protoc -I. --python_out="$$tmp" --pyi_out="$$tmp" --grpc_python_out="$$tmp" agent/proto/*.proto && \
	for file in "$$tmp"/agent/proto/*; do diff -u "agent/proto/$${file##*/}" "$$file" || { echo "run 'make proto' and commit the result"; exit 1; }; done

proto: setup-dev
	$(python) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. agent/proto/*.proto

docs-metrics: setup-dev
	$(python) -m docs.metrics > docs/metrics.md.new && mv docs/metrics.md.new docs/metrics.md

dashboards: setup-dev
	$(python) -m daemonset.dashboards

docs-images: setup-dev
	$(python) -m docs.images

# builds both images' roots by debootstrap and runs their entry points; needs root and a Debian mirror
image-check:
	@python3 .ci/image-check

# on the Vagrant machine, with everything installed
e2e:
	@.ci/vagrant/e2e

setup:
	@.ci/setup run

setup-dev:
	@.ci/setup dev

clean:
	rm -rf .venv .envoy .prometheus build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
