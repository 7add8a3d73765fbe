"""A module that is loaded when something of it is used."""

import subprocess
import sys

from panoptic.configuration import config_folder


def printed(code):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_a_module_is_loaded_when_something_of_it_is_used():
    code = """if True:
        import sys
        from panoptic.sweeps.first_use import loaded_at_first_use
        with loaded_at_first_use("colorsys"):
            import colorsys
        print("colorsys" in sys.modules)
        print(colorsys.rgb_to_hsv(1.0, 0.0, 0.0), "colorsys" in sys.modules)
    """
    assert printed(code) == "False\n(0.0, 1.0, 1.0) True\n"


def test_a_grid_is_checked_and_drawn_without_what_takes_long():
    path = config_folder().parent / "sweeps" / "lambda_grid.yaml"
    code = f"""if True:
        import sys
        from panoptic.sweep import main
        main([{str(path)!r}, "--dry-run"])
        print([name for name in ("scipy.stats", "sklearn", "torch", "wandb") if name in sys.modules])
    """
    assert printed(code).splitlines()[-1] == "[]"
