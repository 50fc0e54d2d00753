# The two commands people need are `make demo` and `make test`; both set up what they need first.
python := .venv/bin/python
bin := .venv/bin

.PHONY: demo test test-kernel lint docs-metrics dashboards docs-images proto image-check clean setup setup-dev

demo: setup
	$(bin)/sonde-lab demo

test: setup-dev
	$(bin)/pytest

test-kernel: setup-dev
	SONDE_REQUIRE=kernel $(bin)/pytest tests/kernel

lint: setup-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/clang-format --dry-run --Werror bpf/*.c bpf/*.h
	@# generated code must be what `make proto` writes
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	$(python) -m grpc_tools.protoc -I. --python_out="$$tmp" --pyi_out="$$tmp" --grpc_python_out="$$tmp" agent/proto/telemetry.proto && \
	for file in "$$tmp"/agent/proto/*; do diff -u "agent/proto/$${file##*/}" "$$file" || { echo "run 'make proto' and commit the result"; exit 1; }; done

proto: setup-dev
	$(python) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. agent/proto/telemetry.proto

docs-metrics: setup-dev
	$(python) -m docs.metrics > docs/metrics.md.new && mv docs/metrics.md.new docs/metrics.md

dashboards: setup-dev
	$(python) -m daemonset.dashboards

docs-images: setup-dev
	$(python) -m docs.images

image-check:
	@echo "image-check: there are no images yet (see CHANGELOG.md)"; exit 1

setup:
	@.ci/setup run

setup-dev:
	@.ci/setup dev

clean:
	rm -rf .venv .envoy .prometheus build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
