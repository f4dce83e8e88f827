# SPDX-License-Identifier: Apache-2.0
"""The description of the graphs is checked when it is read, and both ways of starting get the same from it."""

import pytest
import yaml

from lapa_core.errors import ContractError, SetupError
from lapa_core.graph import load_graph, load_graphs
from lapa_core.paths import config_dir
from lapa_core.up import UpConfig, _given, process_plans


@pytest.fixture
def environ(tmp_path):
    folder = tmp_path / "lib" / "lapa_ros"
    folder.mkdir(parents=True)
    for graph in load_graphs().values():
        for node in graph.nodes:
            (folder / node.executable).touch()
    return {"AMENT_PREFIX_PATH": str(tmp_path)}


def edited(tmp_path, change):
    data = yaml.safe_load((config_dir() / "graph.yaml").read_text())
    change(data)
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["graphs"]["policy"]["nodes"][0].update(colour="red"), "unknown keys"),
        (lambda d: d["graphs"]["policy"]["nodes"][0]["set"].update(contract="{robot}"), "robot"),
        (lambda d: d["graphs"]["policy"]["nodes"][0].update(when={"moon": "full"}), "moon"),
        (lambda d: d["graphs"]["policy"]["arguments"].append("moon"), "moon"),
        (lambda d: d["graphs"]["policy"]["nodes"][0].pop("executable"), "executable"),
        (lambda d: d["graphs"]["policy"].pop("description"), r"graphs.policy has the keys"),
        (lambda d: d["graphs"]["policy"].update(nodez=[]), r"nodez.*needed are"),
        (lambda d: d.pop("arguments"), r"has the keys \['graphs'\]"),
    ],
)
def test_a_wrong_description_is_refused_with_its_place(tmp_path, change, message):
    with pytest.raises(ContractError, match=message):
        load_graphs(edited(tmp_path, change))


def test_arguments_are_checked():
    graph = load_graph("policy")
    with pytest.raises(ContractError, match="no argument"):
        graph.values({"colour": "red"})
    with pytest.raises(ContractError, match="allowed are"):
        graph.values({"use_sim": "perhaps"})
    with pytest.raises(ContractError, match="'teleport' is unknown"):
        load_graph("teleport")


def test_simulation_or_a_dry_run_is_one_argument():
    graph = load_graph("policy")
    names = {
        use: [node.name for node in graph.active_nodes(graph.values({"use_sim": use}))]
        for use in ("true", "false")
    }
    assert names == {"true": ["sim", "arm", "policy"], "false": ["arm", "policy"]}


def test_command_lines_carry_arguments_and_leave_empty_ones_to_the_yaml(environ, tmp_path):
    extra = tmp_path / "mine.yaml"
    extra.touch()
    graph = load_graph("policy")
    config = UpConfig(
        robot_name="left", params_file=str(extra), checkpoint="/models/best", use_sim=False
    )
    plans = process_plans(graph, graph.values(_given(config, graph)), environ)
    arm, policy = (list(plan.command) for plan in plans)
    assert arm[0].endswith("lib/lapa_ros/arm_node")
    assert 'backend:="dry_run"' in arm
    assert "__ns:=/left" in arm
    assert [arm[i + 1] for i, word in enumerate(arm) if word == "--params-file"] == [
        str(config_dir() / "nodes" / "arm.yaml"), str(extra),
    ]  # fmt: skip
    assert 'checkpoint:="/models/best"' in policy
    assert not any(word.startswith("camera_topic") for word in policy)


def test_arguments_of_one_graph_only_are_given_with_set(environ):
    graph = load_graph("record")
    values = graph.values(
        _given(UpConfig(graph="record", set=("episodes:=3", "folder:=/data")), graph)
    )
    plans = process_plans(graph, values, environ)
    assert [plan.name for plan in plans if plan.ends_all] == ["operator"]
    assert "episodes:=3" in plans[-1].command
    with pytest.raises(ContractError, match="name:=value"):
        _given(UpConfig(graph="record", set=("episodes=3",)), graph)


@pytest.mark.parametrize("episodes", ["many", "1.5", "[3]"])
def test_an_argument_of_another_type_is_refused_before_anything_starts(environ, episodes):
    graph = load_graph("record")
    with pytest.raises(ContractError, match=r"parameter episodes is .* type int"):
        process_plans(graph, graph.values({"episodes": episodes}), environ)


def test_what_is_missing_is_named(environ, tmp_path):
    graph = load_graph("policy")
    with pytest.raises(SetupError, match="sim_node"):
        process_plans(graph, graph.values({}), {"AMENT_PREFIX_PATH": str(tmp_path / "elsewhere")})
    with pytest.raises(ContractError, match="does not exist"):
        process_plans(graph, graph.values({"params_file": str(tmp_path / "none.yaml")}), environ)
