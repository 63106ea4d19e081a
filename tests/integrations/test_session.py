"""What all integrations share."""

import importlib
import subprocess
import sys

import pytest

from trainvitals.hooks.integrations.session import Session, need

HIDDEN = {
    "lightning": ("lightning", "lightning.pytorch", "pytorch_lightning"),
    "transformers": ("transformers",),
    "accelerate": ("accelerate", "accelerate.tracking"),
}


@pytest.mark.parametrize("library", HIDDEN)
def test_a_missing_library_is_named_with_how_to_install_it(library, monkeypatch):
    module = f"trainvitals.hooks.integrations.{library}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    for name in HIDDEN[library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(module)
    assert str(caught.value) == (
        f"This integration needs {library}. Install it: pip install {library}"
    )


def test_an_error_inside_a_library_is_not_taken_for_its_absence(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        need("half_there", "half-there")


@pytest.mark.slow
def test_the_hooks_import_no_integration_and_tensorboards_stand_in_no_tensorboard():
    code = (
        "import sys, trainvitals.hooks as tv; tv.watch; "
        "from trainvitals.hooks.integrations.tensorboard import SummaryWriter; "
        "print(' '.join(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded & {
        "lightning",
        "pytorch_lightning",
        "transformers",
        "accelerate",
        "tensorboard",
    }


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="'projekt'"):
        Session({"projekt": "digits"})
