"""The command: what there is, exit statuses, one-line mistakes before any work."""

import json
import subprocess
import sys

import pytest

from bench.cli import app, main

COMMANDS = [
    "run", "plan", "status", "leaderboard", "ui", "evaluate", "audit", "pretrain", "pull", "attacks", "presets",
]  # fmt: skip


def test_the_commands_are_these():
    assert [name for name in app if not name.startswith("-")] == COMMANDS


OPTIONS = {
    "run": "set address runtime retry no-track",
    "plan": "set format",
    "status": "format",
    "leaderboard": "format out rebuild-mlflow",
    "ui": "port",
    "evaluate": "by positive lower-is-member against format",
    "audit": "model base generated members nonmembers shadow auxiliary attacks caption prompt fpr random-split"
    " skip-unreadable pictures credit set out address runtime retry file check",
    "pretrain": "out work set",
    "pull": "",
    "attacks": "format",
    "presets": "",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_s_options_are_these_and_its_help_says_all_with_examples(command, capsys):
    names = [name for argument in app[command].assemble_argument_collection() for name in argument.positives]
    options = {name for name in names if name.startswith("--")}
    assert options == {f"--{name}" for name in ["store", *OPTIONS[command].split()]}
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"lmia {command}" in shown.split("Examples:")[1]
    assert all(option in shown for option in options - {"--store"})


def test_the_shell_can_complete(capsys):
    script = app.generate_completion(shell="bash")
    assert all(command in script for command in COMMANDS) and "--skip-unreadable" in script


def test_options_of_an_audit_are_fields_of_its_request():
    from bench.audit.request import Audit
    from bench.cli_audit import FIELDS

    assert set(FIELDS) <= set(Audit.model_fields)
    assert not [a.name for a in app["audit"].assemble_argument_collection() if a.required], "--file may have them"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quik"], "unknown preset 'quik'; did you mean 'quick'"),
        (["plan", "tiny", "--set", "default.aux=reel"], "did you mean 'real'"),
        (["run", "tiny", "--runtime", "wokers=2"], "did you mean 'workers'"),
        (["run", "tiny", "--runtime", "device=tpu"], "device = 'tpu'"),
        (["leaderboard", "nothing"], "no campaign 'nothing'"),
        (["leaderboard", "--format", "yaml"], 'Invalid value "yaml" for --format. Choose from: "table"'),
        (["runn"], 'Unknown command "runn". Did you mean "run"?'),
        (["run", "tiny", "--runtme", "workers=2"], "Unknown option: --runtme. Did you mean --runtime?"),
        (["run", "tiny", "--no-trak"], "Did you mean --no-track?"),
        (["audit", "--membrs", "a"], "Did you mean --members"),
        (["run"], "PRESET|FILE requires an argument"),
        (["plan", "tiny", "quick"], "quick"),
        ([], "which command?"),
        (["run", "tiny", "--set", "default.base=some/model"], "a hub id must be pinned"),
        (["pull", "../../x"], "REPOSITORY '../../x': expected OWNER/NAME"),
        (["pull", "a/b@"], "REPOSITORY 'a/b@': expected OWNER/NAME"),
        (["ui", "--port", "70000"], 'Invalid value "70000" for --port. Must be <= 65535'),
        (["pretrain", "--out", "x", "--work", "y", "--set", "unet_stepz=1"], "did you mean 'unet_steps'"),
    ],
)
def test_mistakes_exit_2_with_one_line_and_no_work(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def pictures(folder, count):
    from PIL import Image

    for person in range(count):
        (folder / f"p{person:02d}").mkdir(parents=True)
        for photo in range(2):
            colour = (person * 20 % 256, 255 - person * 11 % 256, photo * 90 + len(folder.name.strip("north")) * 9)
            image = Image.linear_gradient("L").rotate(person * 17 + photo * 40).convert("RGB")
            Image.blend(image, Image.new("RGB", image.size, colour), 0.4).save(
                folder / f"p{person:02d}" / f"{photo}.png"
            )


def folder_benchmark(tmp_path, **more):
    import yaml

    raw = {
        "extends": "tiny",
        "name": "mine",
        "data": {"kind": "folder", "root": str(tmp_path / "faces"), "size": 32, "near_duplicates": "keep", **more},
        "people": {"A": 2, "B": 2, "C": 2, "aux": 4, "query": 2},
        "trained_photos": 1,
        "pictures": 4,
        "grid": [{"name": "x", "axes": {"attack": "loss"}}],
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return str(path)


def test_bad_pictures_are_mistakes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces" / "north").mkdir(parents=True)
    assert main(["plan", folder_benchmark(tmp_path)]) == 2
    assert "no pictures in it" in capsys.readouterr().err
    pictures(tmp_path / "faces" / "north", 12)
    pictures(tmp_path / "faces" / "south", 5)
    assert main(["plan", folder_benchmark(tmp_path), "--set", "finetune.caption=caption"]) == 2
    assert "have no caption" in capsys.readouterr().err
    assert main(["plan", folder_benchmark(tmp_path), "--set", "grid.0.axes.captions=[caption]"]) == 2
    assert "have no caption" in capsys.readouterr().err


def test_pictures_without_captions_take_the_class_prompt_which_is_said_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "faces" / "north", 12)
    pictures(tmp_path / "faces" / "south", 5)
    assert main(["plan", folder_benchmark(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert said.count("one class prompt a source, such as 'a north headshot'") == 1


def test_a_source_supplies_only_what_is_asked_of_it(tmp_path, capsys, monkeypatch):
    """Attack loss on same_source asks north for A and B alone: 4 people are enough, 3 are not."""
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "faces" / "north", 4)
    pictures(tmp_path / "faces" / "south", 1)
    assert main(["plan", folder_benchmark(tmp_path)]) == 0
    capsys.readouterr()
    wider = ["--set", "grid.0.axes.query=[same_source, other_source]"]
    assert main(["plan", folder_benchmark(tmp_path), *wider]) == 2
    said = capsys.readouterr().err
    assert "source 'north': 6 people are needed (A 2, B 2, C 2), there are 4" in said
    assert "source 'south': 6 people are needed (aux 4, query 2), there are 1" in said


def test_one_source_under_two_names_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "faces" / "north", 12)
    (tmp_path / "faces" / "south").symlink_to(tmp_path / "faces" / "north")
    assert main(["plan", folder_benchmark(tmp_path)]) == 2
    assert "one source under two names" in capsys.readouterr().err


def test_unreadable_picture_is_named_or_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "faces" / "north", 13)
    pictures(tmp_path / "faces" / "south", 5)
    (tmp_path / "faces" / "north" / "p12" / "0.png").write_bytes(b"not a picture")
    captions = ["--set", "finetune.caption=class", "--set", "default.captions=class"]
    assert main(["run", folder_benchmark(tmp_path), *captions]) == 2
    assert "north/p12/0.png" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
    lenient = folder_benchmark(tmp_path, skip_unreadable=True)
    assert main(["plan", lenient, *captions]) == 0
    error = capsys.readouterr().err
    assert "1 of 36 pictures left out, unreadable" in error
    assert "1 people with fewer than 2 photos are left out" in error


def test_fewer_people_than_needed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "faces" / "north", 3)
    pictures(tmp_path / "faces" / "south", 5)
    assert main(["plan", folder_benchmark(tmp_path)]) == 2
    assert "source 'north': 4 people are needed (A 2, B 2), there are 3;" in capsys.readouterr().err


def test_pickled_base_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / "model" / part).mkdir(parents=True)
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert main(["plan", "tiny", "--set", f"default.base={tmp_path / 'model'}"]) == 2
    assert "is a pickle" in capsys.readouterr().err


def test_plan_runs_nothing_and_counts(tmp_path, capsys):
    assert main(["plan", "tiny", "--store", str(tmp_path / "s"), "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    lines = {line["kind"]: line for line in value["artifacts"]}
    assert lines["row"]["unique"] == len(value["cells"])
    assert lines["model"]["unique"] < lines["model"]["naive"]
    assert not (tmp_path / "s").exists()
    assert main(["plan", "tiny", "--store", str(tmp_path / "s")]) == 0
    assert "a script per cell" in capsys.readouterr().out


def test_status_of_an_empty_store(tmp_path, capsys):
    assert main(["status", "--store", str(tmp_path)]) == 0
    assert "nothing was run" in capsys.readouterr().out


def test_help_does_not_import_torch():
    code = "import sys; from bench.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_attacks_and_presets_are_listed(capsys):
    assert main(["attacks", "--format", "json"]) == 0
    assert {"loss", "generated_set_classifier"} <= {row["attack"] for row in json.loads(capsys.readouterr().out)}
    assert main(["presets"]) == 0
    assert "quick" in capsys.readouterr().out
