from __future__ import annotations

import subprocess
import sys


def test_help_names_the_tracks_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from metaportrait_cli.cli.train import app\n"
        "result = CliRunner().invoke(app, ['morphable', '--help'])\n"
        "assert result.exit_code == 0 and 'landmark tracks' in result.output, result.output\n"
        "assert not {'torch', 'numpy', 'cv2', 'mediapipe'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
