"""The wheel holds exactly what the repository tracks."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tracked() -> set[str]:
    listing = subprocess.run(
        ["git", "ls-files", "app", "hooks", "templates", "static"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listing.stdout.split())


@pytest.mark.slow
def test_the_wheel_holds_every_tracked_file_and_no_other(tmp_path):
    command = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {
        name.removeprefix("trainvitals/") for name in names if name.startswith("trainvitals/")
    }
    assert shipped == tracked()
    assert {name.split("/")[0] for name in names} == {"trainvitals", "trainvitals-0.1.0.dist-info"}


def test_every_python_package_is_listed():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(config["tool"]["setuptools"]["packages"])
    present = {
        "trainvitals." + str(Path(name).parent).replace("/", ".")
        for name in tracked()
        if name.endswith("__init__.py")
    }
    assert present <= listed


def test_the_root_is_no_package():
    assert not (ROOT / "__init__.py").exists()
