"""Configurations of other pickers: what holds here, and what is said of the rest."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.places import Told
from controller.assembly import answering, pages_of, plugins_of
from controller.choosing.picker import Picker
from controller.choosing.saturation import SONDE, limits
from controller.config import Config, parse
from controller.daemon import run
from controller.endpoints.table import Table
from controller.exporting.counts import Counts
from controller.plugins import NOTHING, PluginsError, taken
from controller.starting import StartError

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
# the shape of the guides' first one
BASELINE = (
    HEAD
    + """
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: no-hit-lru-scorer
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2.5}
  - {pluginRef: prefix-cache-scorer}
  - {pluginRef: no-hit-lru-scorer, weight: 2}
"""
)


def test_weights_of_the_first_profile_are_taken() -> None:
    found = taken(BASELINE, "gie-v1")

    assert found.weights == (2, 2.5, 1, 0)
    assert found.notes == ("plugin no-hit-lru-scorer has no effect",)


def test_under_another_rule_weights_are_said_to_have_no_effect() -> None:
    assert "weights of scorers have no effect with --policy sonde, only with gie-v1" in taken(BASELINE, "sonde").notes


def test_named_plugins_are_found_by_their_names_and_further_profiles_are_said_to_be_left_out() -> None:
    text = HEAD + (
        "plugins: [{name: q, type: queue-scorer}, {name: cpu, type: prefix-cache-scorer, parameters: {x: 1}},"
        " {name: gpu, type: prefix-cache-scorer}]\n"
        "schedulingProfiles: [{name: a, plugins: [{pluginRef: q, weight: 3}, {pluginRef: cpu}, {pluginRef: gpu}]},"
        " {name: prefill, plugins: []}]\n"
    )
    found = taken(text, "gie-v1")

    assert found.weights == (3, 0, 2, 0)
    assert found.notes == (
        "schedulingProfiles[1] (prefill) has no effect: one is used",
        "plugin cpu (prefix-cache-scorer): x has no effect",
    )


def test_without_profiles_every_scorer_counts_one() -> None:
    assert taken(HEAD + "plugins: [{type: queue-scorer}, {type: kv-cache-scorer}]", "gie-v1").weights == (1, 1, 0, 0)
    assert taken(HEAD, "gie-v1").weights is None


@pytest.mark.parametrize(
    "text",
    [
        "saturationDetector: {queueDepthThreshold: 9, kvCacheUtilThreshold: 0.7, metricsStalenessThreshold: 150ms}",
        "plugins: [{type: utilization-detector, parameters: {queueDepthThreshold: 9, kvCacheUtilThreshold: 0.7,"
        " metricsStalenessThreshold: 150ms}}]\nsaturationDetector: {pluginRef: utilization-detector}",
        "plugins: [{name: d, type: utilization-detector, parameters: {queueDepthThreshold: 9,"
        " kvCacheUtilThreshold: 0.7, metricsStalenessThreshold: 150ms}}]\n"
        "flowControl: {saturationDetector: {pluginRef: d}}",
    ],
    ids=["1.0", "1.5", "llm-d"],
)
def test_thresholds_of_saturation_are_taken_in_the_form_of_every_release(text: str) -> None:
    found = taken(HEAD + text, "gie-v1")

    known = found.limited(limits("gie-v1", {"SD_QUEUE_DEPTH_THRESHOLD": "7"}))
    assert (known.queue, known.kv_cache_usage, known.engine_age_s) == (9, 0.7, 0.15)
    assert found.notes == ()
    assert found.limited(SONDE).queue == 9
    assert NOTHING.limited(SONDE) == SONDE


def test_the_tree_as_a_configuration_gives_its_thresholds() -> None:
    text = HEAD + (
        "plugins: [{type: low-queue-filter, parameters: {threshold: 64}}, {type: lora-affinity-filter,"
        " parameters: {threshold: 0.9}}, {type: sheddable-capacity-filter,"
        " parameters: {queueThreshold: 3, kvCacheThreshold: 0.6}}]"
    )
    known = taken(text, "gie-v0.3").limited(limits("gie-v0.3", {}))

    assert (known.low_queue, known.adapter_affinity, known.queue, known.kv_cache_usage) == (64, 0.9, 3, 0.6)


def test_pickers_parsers_and_test_plugins_are_taken() -> None:
    found = taken(
        HEAD + "plugins: [{type: random-picker, parameters: {maxNumOfEndpoints: 3}},"
        " {type: header-based-testing-filter}, {type: passthrough-parser}]\n"
        "requestHandler: {parsers: [{pluginRef: passthrough-parser}]}",
        "sonde",
    )
    assert (found.max_endpoints, found.hooks, found.reads) == (3, True, False)
    assert found.notes == ("plugin random-picker: endpoints are chosen by --policy",)
    assert taken(HEAD + "plugins: [{type: passthrough-parser}]\nparser: {pluginRef: passthrough-parser}", "").reads is (
        False
    )
    both = "plugins: [{type: openai-parser}, {type: passthrough-parser}]\nrequestHandler: {parsers: ["
    both += "{pluginRef: openai-parser}, {pluginRef: passthrough-parser}]}"
    assert taken(HEAD + both, "").reads is True


def test_where_pages_are_is_taken_and_a_flag_counts_for_more() -> None:
    source = "plugins: [{type: metrics-data-source, parameters: {scheme: https, path: /m, insecureSkipVerify: true}}]"
    found = taken(HEAD + source, "sonde")

    assert (found.pages, found.notes) == (Told(0, "/m", True), ())
    assert pages_of(Config("p"), found) == Told(0, "/m", True)
    assert pages_of(Config("p", page_port=9400), found) == Told(9400)
    assert pages_of(Config("p"), NOTHING) is None


def test_each_thing_without_effect_has_a_line() -> None:
    text = HEAD + (
        "featureGates: [flowControl]\n"
        "plugins: [{type: concurrency-detector, parameters: {maxConcurrency: 132}}, {type: fcfs-ordering-policy},"
        " {type: metrics-data-source, parameters: {path: /m, caCertPath: /x, interval: 1s}}]\n"
        'flowControl: {maxBytes: "10Gi", defaultRequestTTL: 60s, saturationDetector: {pluginRef: concurrency-detector}}'
        "\ndataLayer: {injectDefaults: true}\n"
    )
    assert taken(text, "sonde").notes == (
        "saturationDetector concurrency-detector has no effect: queues and KV caches are looked at",
        "flowControl.defaultRequestTTL has no effect: with --policy sonde requests wait by --slo-ttft",
        "flowControl.maxBytes has no effect: with --policy sonde requests wait by --slo-ttft",
        "plugin concurrency-detector has no effect",
        "plugin fcfs-ordering-policy has no effect",
        "plugin metrics-data-source: caCertPath, interval has no effect",
        "dataLayer has no effect",
        "featureGates has no effect",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "kind: expected EndpointPickerConfig, got None"),
        ("kind: Pod", "kind: expected EndpointPickerConfig, got 'Pod'"),
        ("a: [", "no YAML"),
        ("a: &a [*a]\n\x00", "no YAML"),
        (HEAD + "plugins: 7", "plugins: expected a list, got 7"),
        (HEAD + "plugins: [7]", "plugins[0]: expected a mapping, got 7"),
        (HEAD + "plugins: [{}]", "plugins[0].type: missing"),
        (HEAD + "plugins: [{type: a}, {type: a}]", "plugins[1].name: two plugins are called 'a'"),
        (HEAD + "schedulingProfiles: [{plugins: [{pluginRef: x}]}]", "schedulingProfiles[0].plugins[0].pluginRef: no"),
        (
            HEAD + "saturationDetector: {queueDepthThreshold: many}",
            "saturationDetector.queueDepthThreshold: expected a",
        ),
        (HEAD + "saturationDetector: {queueDepthThreshold: -1}", "expected a number from 0, got -1"),
        (HEAD + "saturationDetector: {kvCacheUtilThreshold: 80}", "expected a number from 0 to 1, got 80"),
        (HEAD + "saturationDetector: {kvCacheUtilThreshold: .nan}", "expected a number from 0 to 1, got nan"),
        (HEAD + "saturationDetector: {metricsStalenessThreshold: 200}", "expected text, got 200 (quote it)"),
        (HEAD + "saturationDetector: {metricsStalenessThreshold: soon}", "'soon' is no duration"),
        (HEAD + "saturationDetector: {pluginRef: x}", "saturationDetector.pluginRef: no plugin is called 'x'"),
        (HEAD + "parser: {pluginRef: [1]}", "parser.pluginRef: expected text"),
        (
            HEAD + "plugins: [{type: metrics-data-source, parameters: {path: m}}]",
            "plugins[0].parameters.path: expected a path such as /metrics, got 'm'",
        ),
        (
            HEAD + "plugins: [{type: max-score-picker, parameters: {maxNumOfEndpoints: 99}}]",
            "plugins[0].parameters.maxNumOfEndpoints: expected a whole number 1..16, got 99",
        ),
    ],
)
def test_a_fault_is_one_line_that_says_where(text: str, said: str) -> None:
    with pytest.raises(PluginsError) as raised:
        taken(text, "gie-v1")

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["queue-scorer", "x", ""]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["plugins", "type", "name", "parameters", "pluginRef", "weight", "parsers", "x"]), inner
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(["plugins", "schedulingProfiles", "saturationDetector", "parser", "requestHandler", "flowControl"]),
)
def test_whatever_a_field_holds_is_taken_or_refused(value: object, field: str) -> None:
    with suppress(PluginsError):
        taken(yaml.safe_dump({"kind": "EndpointPickerConfig", field: value}), "gie-v1")


# as a controller starts


def config(**changes: object) -> Config:
    return Config("p", **changes)  # type: ignore[arg-type]


def _answering(settings: Config, held: Table) -> Picker:
    return answering(settings, plugins_of(settings), held, Random(1), Counts())[0]


def test_what_is_taken_reaches_the_parts_that_answer(tmp_path: Path) -> None:
    path = tmp_path / "plugins.yaml"
    path.write_text(HEAD + "plugins: [{type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}]")
    made = [_answering(config(config_file=path, max_endpoints=most), Table("g", "default", "p")) for most in (1, 4)]
    assert [picker.max_endpoints for picker in made] == [2, 4]  # a flag counts for more


def test_a_line_of_the_log_says_what_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    plugins_of(config(config_text=BASELINE, policy="gie-v1"))

    assert [record.getMessage() for record in caplog.records] == [
        "--config-text: plugin no-hit-lru-scorer has no effect"
    ]


@pytest.mark.parametrize("content", [b"kind: Pod", b"\xff\xfe\xff"])
def test_a_controller_does_not_start_with_a_configuration_it_cannot_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plugins.yaml"
    path.write_bytes(content)
    with pytest.raises(StartError) as raised:
        asyncio.run(run(config(config_file=path, manifests=tmp_path), asyncio.Event()))
    assert str(raised.value).startswith(f"--config-file {path}: ")
    assert "\n" not in str(raised.value)


def test_text_and_file_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plugins.yaml"
    path.write_text(HEAD)
    common = ["--pool-name", "p", "--manifests", str(tmp_path)]
    assert parse([*common, "-config-text", HEAD]).config_text == HEAD
    with pytest.raises(SystemExit):
        parse([*common, f"--config-text={HEAD}", "--config-file", str(path)])
    assert "--config-file and --config-text cannot both be given" in capsys.readouterr().err
