# SPDX-License-Identifier: Apache-2.0
"""The `lapa` command: a table of verbs, each a frozen config and a `main(config)` in the module that owns it.

Only the module of the verb that was asked for is imported, so `lapa --help` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from types import ModuleType
from typing import Any, NamedTuple

from lapa_core import __version__
from lapa_core.errors import ContractError, LapaError
from lapa_core.ros_env import enter_workspace
from lapa_core.terminal import passing_note


class Verb(NamedTuple):
    """Where a verb lives."""

    words: str
    """What the user types after `lapa`."""
    config: str
    """`module:ConfigClass`; the module also has `main(config)` and, for stages, `PRESETS` and `PRESET_NOTES`."""
    help: str
    """One line for `lapa --help`."""


VERBS = (
    Verb(
        "demo",
        "lapa_ros.demo:DemoConfig",
        "the whole loop in simulation over ROS 2: 20 instructions, a table, a video",
    ),
    Verb(
        "up",
        "lapa_core.up:UpConfig",
        "start a ROS graph (policy, teleop, ...) without `ros2 launch`",
    ),
    Verb(
        "sim collect",
        "lapa_core.sim.collect:CollectConfig",
        "record videos (or demonstrations) of the scripted expert",
    ),
    Verb("sim gallery", "lapa_core.sim.gallery:GalleryConfig", "draw a contact sheet of the tasks"),
    Verb(
        "data index",
        "lapa_core.data.index:IndexConfig",
        "scan videos, frame folders or data sets once, for training and labelling at size",
    ),
    Verb("data info", "lapa_core.data.commands:InfoConfig", "say what a data set holds"),
    Verb(
        "data import",
        "lapa_core.data.commands:ImportConfig",
        "turn RLDS, HDF5 or plain videos into a LeRobot v3 data set",
    ),
    Verb(
        "data export",
        "lapa_core.data.commands:ExportConfig",
        "turn recorded MCAP episodes into a LeRobot v3 data set",
    ),
    Verb(
        "data export-release",
        "lapa_core.data.release_rows:ReleaseExportConfig",
        "write a data set as the JSON lines that the authors' finetuning reads",
    ),
    Verb(
        "data review",
        "lapa_core.data.review:DataReviewConfig",
        "look at every recording on a local page: keep, drop or trim it",
    ),
    Verb(
        "data doctor",
        "lapa_core.data.doctor:DoctorConfig",
        "find every fault of recordings, or of a LeRobot v3 data set",
    ),
    Verb(
        "laq train",
        "lapa_core.laq.train:LaqTrainConfig",
        "learn latent actions from videos without labels",
    ),
    Verb(
        "laq label",
        "lapa_core.laq.label:LaqLabelConfig",
        "write the latent codes of every frame of a data set",
    ),
    Verb(
        "laq probe",
        "lapa_core.laq.probe:LaqProbeConfig",
        "measure what the codes say about the true actions",
    ),
    Verb(
        "laq report",
        "lapa_core.laq.report:LaqReportConfig",
        "one page that answers: is my latent action model good?",
    ),
    Verb(
        "laq play",
        "lapa_core.laq.play:LaqPlayConfig",
        "the world model: choose a frame and codes, watch what the decoder makes of them",
    ),
    Verb(
        "laq info",
        "lapa_core.laq.info:LaqInfoConfig",
        "parameters, names and shapes of a preset, as JSON, without allocating them",
    ),
    Verb(
        "laq import-release",
        "lapa_core.laq.import_release:ImportReleaseConfig",
        "turn the authors' laq_openx.pt into a checkpoint of ours",
    ),
    Verb(
        "laq options",
        "lapa_core.experiment.options:LaqOptionsConfig",
        "train and probe every option of the latent action model on the simulator's videos",
    ),
    Verb(
        "idm train",
        "lapa_core.idm.train:IdmTrainConfig",
        "learn which action lies between two frames, to label videos with (VPT)",
    ),
    Verb(
        "unipi train",
        "lapa_core.unipi.train:UnipiTrainConfig",
        "teach a video diffusion model which frames come next (UniPi)",
    ),
    Verb(
        "unipi policy",
        "lapa_core.unipi.join:UnipiPolicyConfig",
        "join it and an inverse dynamics model to a policy that plans frames",
    ),
    Verb(
        "vla pretrain",
        "lapa_core.vla.pretrain:PretrainConfig",
        "teach the policy to predict latent codes",
    ),
    Verb(
        "vla finetune",
        "lapa_core.vla.finetune:FinetuneConfig",
        "ground it in robot actions with few labelled episodes",
    ),
    Verb(
        "vla table",
        "lapa_core.vla.table:TableConfig",
        "ground it in a code-to-action table instead, without training",
    ),
    Verb(
        "vla info",
        "lapa_core.vla.info:VlaInfoConfig",
        "parameters, names and shapes of a preset, as JSON, without allocating them",
    ),
    Verb(
        "vla import-release",
        "lapa_core.vla.import_release:ImportReleaseConfig",
        "turn the authors' LAPA-7B weights into a checkpoint of ours",
    ),
    Verb(
        "serve",
        "lapa_core.serve:ServeConfig",
        "answer openpi's clients, or a robot PC without a GPU, over a websocket",
    ),
    Verb(
        "eval",
        "lapa_core.evaluate:EvalConfig",
        "roll a policy out in the simulator: success per task family",
    ),
    Verb(
        "experiment",
        "lapa_core.experiment:ExperimentConfig",
        "run the comparison of the README, cell by cell",
    ),
    Verb(
        "bench sim",
        "lapa_core.bench.sim:BenchSimConfig",
        "control steps per second of the simulator",
    ),
    Verb(
        "bench laq",
        "lapa_core.bench.laq:BenchLaqConfig",
        "training images per second against a plain fp32 loop over the same model",
    ),
    Verb(
        "bench video",
        "lapa_core.bench.video:BenchVideoConfig",
        "frame pairs per CPU second against the map-style loader and the decode limit",
    ),
    Verb(
        "bench arm",
        "lapa_ros.bench_arm:BenchArmConfig",
        "from a delta to the joint command that carries it, through the arm node",
    ),
    Verb(
        "bench recorder",
        "lapa_ros.bench_recorder:BenchRecorderConfig",
        "what recording costs, and what a killed recorder loses, over real DDS",
    ),
    Verb(
        "bench vla",
        "lapa_core.bench.vla:BenchVlaConfig",
        "frame to action: p50 and p99 against plain `generate` and the floor of the hardware",
    ),
)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; a `LapaError` becomes one line on stderr and exit status 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in ([], ["-h"], ["--help"], ["help"]):
        print(_overview(VERBS))
        return
    if words[0] == "--version":
        print(__version__)
        return
    verb = _find(words)
    rest = words[len(verb.words.split()) :]
    try:
        run(verb, rest)
    except LapaError as error:
        sys.exit(f"lapa {verb.words}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def run(verb: Verb, arguments: list[str]) -> None:
    """Parse `arguments` into the verb's config (or one of its presets) and run it.

    Raises:
        ContractError: the verb has presets, and the first argument is none of them.
    """
    module_name = verb.config.partition(":")[0]
    if module_name.startswith("lapa_ros."):
        enter_workspace()
    with passing_note(f"lapa {verb.words}: loading"):  # torch alone takes seconds
        module = importlib.import_module(module_name)
    config = _parse(verb, module, arguments)
    elsewhere = getattr(config, "ray", "") or getattr(config, "dry_run", False)
    if getattr(config, "device", "cpu") != "cpu" and not elsewhere:
        from lapa_core.train.device import check_device

        check_device(config.device)
    module.main(config)


def _parse(verb: Verb, module: ModuleType, arguments: list[str]) -> Any:
    """Return the verb's config, from the preset that the first argument names where the module has presets."""
    import tyro

    program = f"lapa {verb.words}"
    presets = getattr(module, "PRESETS", None)
    if presets is None:
        return tyro.cli(
            getattr(module, verb.config.partition(":")[2]), prog=program, args=arguments
        )
    notes = getattr(module, "PRESET_NOTES", {})
    if arguments[:1] in (["-h"], ["--help"]):
        choices = {name: (notes.get(name, name), preset) for name, preset in presets.items()}
        return tyro.extras.overridable_config_cli(choices, prog=program, args=arguments)
    asked = arguments[0].replace("-", "_") if arguments else ""
    if asked not in presets:
        raise ContractError(_no_preset(arguments, list(presets)))
    return tyro.cli(
        type(presets[asked]), default=presets[asked], prog=f"{program} {asked}",
        description=notes.get(asked), args=arguments[1:], config=(tyro.conf.AvoidSubcommands,),
    )  # fmt: skip


def _no_preset(arguments: list[str], presets: list[str]) -> str:
    known = f"there are {', '.join(presets)}"
    if not arguments:
        return f"a preset is missing; {known}"
    close = difflib.get_close_matches(arguments[0], presets, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"a preset comes first, and {arguments[0]!r} is none; {hint}{known}"


def _find(words: list[str]) -> Verb:
    for length in (2, 1):
        asked = " ".join(words[:length])
        for verb in VERBS:
            if verb.words == asked:
                return verb
    group = tuple(verb for verb in VERBS if verb.words.split()[0] == words[0])
    if group and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_overview(group))
        sys.exit(0 if len(words) > 1 else 2)
    asked = " ".join(words[:2])
    close = difflib.get_close_matches(asked, [verb.words for verb in VERBS], n=1, cutoff=0.4)
    hint = f"did you mean `lapa {close[0]}`? " if close else ""
    sys.exit(f"lapa: {asked!r} is no command; {hint}`lapa --help` lists them")


def _overview(verbs: tuple[Verb, ...]) -> str:
    width = max(len(verb.words) for verb in VERBS) + 2
    lines = [
        f"lapa {__version__}: latent action pretraining from videos, on a robot arm",
        "",
        "usage: lapa COMMAND [options]",
        "",
    ]
    lines += [f"  {verb.words:<{width}}{verb.help}" for verb in verbs]
    return "\n".join([*lines, "", "`lapa COMMAND --help` explains every option of a command."])
