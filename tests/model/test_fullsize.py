"""The published size: loading it takes little more memory than holding it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from paliflow.model import VARIANTS
from paliflow.model.weights import expected_shapes

CODE = """
import resource, sys
from paliflow.model import PaliGemma
model = PaliGemma.from_checkpoint(sys.argv[1])
assert model.config.text.depth == 18
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.fullsize
def test_loading_the_3b_file_peaks_under_1_25_times_its_size(tmp_path: Path) -> None:
    path = tmp_path / "paligemma-3b-224.npz"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape in expected_shapes(VARIANTS["paligemma-3b-224"]).items():
            with archive.open(f"params/{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": "|V2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for _ in range(shape[0]):
                    values = rng.standard_normal(shape[1:], np.float32) * 0.02
                    file.write(values.astype(ml_dtypes.bfloat16).tobytes())
    run = subprocess.run(
        [sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=True
    )
    peak, size = int(run.stdout), path.stat().st_size
    print(f"peak {peak / 1e9:.2f} GB, file {size / 1e9:.2f} GB, ratio {peak / size:.3f}")
    assert peak < 1.25 * size
