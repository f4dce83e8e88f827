# SPDX-License-Identifier: Apache-2.0
# Every target sets up what it needs first; a second call finds that done and starts at once.
.DEFAULT_GOAL := help
.PHONY: help demo test check gpu format setup lock clean

bin := .venv/bin
# The version of Python to set up with; any of 3.10 to 3.12, for example `make test PYTHON=python3.12`.
PYTHON ?= $(shell sh setup/find_python.sh)

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup  ## 20 instructions through the real ROS 2 graph: table, video, outputs/demo/summary.json
	@$(bin)/lapa demo

test: setup  ## every test: lapa_core, the ROS packages (colcon), end to end over DDS
	@$(bin)/python -m setup.run_tests

check: setup  ## formatting, lint, types, fast tests: what pre-commit and CI run
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/python -m pytest -q -m "not ros and not slow"

gpu: setup  ## the figures that want a GPU, into outputs/gpu/: LAQ training and labelling at paper size, loaders, LAPA-7B
	@mkdir -p outputs/gpu
	nvidia-smi > outputs/gpu/device.txt
	$(bin)/lapa bench laq --device cuda --preset paper > outputs/gpu/laq_paper.txt
	$(bin)/lapa bench laq --device cuda --preset paper_release > outputs/gpu/laq_paper_release.txt
	$(bin)/lapa bench video > outputs/gpu/video.txt
	$(bin)/python -m pytest -q -m gpu tests > outputs/gpu/tests.txt
	$(bin)/lapa bench vla --device cuda --int8 > outputs/gpu/vla.txt
	@tail -n 1 outputs/gpu/*.txt

format: setup  ## rewrite the sources in the project's format
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

setup:  ## system packages, .venv from the lock, the ROS workspace
	@$(PYTHON) -m setup

lock:  ## resolve setup/requirements/*.in into lock.txt (needs uv)
	@$(PYTHON) -m setup.lock

clean:  ## remove what the set-up made, .venv included; outputs/ stays
	rm -rf .venv ros2_ws/build ros2_ws/install ros2_ws/log build *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
