"""Writes `protos/gen/thumbloop` from `protos/thumbloop`: messages, gRPC stubs and their types.

Run by `make proto`. The output is committed and never edited; a unit test checks that running this again changes
nothing. `grpcio-tools` is pinned exactly, because generated files refuse an older protobuf runtime.
"""

from __future__ import annotations

import argparse
import importlib.resources
import shutil
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).resolve().parent


def generate(output: Path) -> None:
    """Generates all packages below `output` (created; what was there is replaced).

    Raises `subprocess.CalledProcessError` when a proto does not compile.
    """
    shutil.rmtree(output / "thumbloop", ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    google = importlib.resources.files("grpc_tools") / "_proto"
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "thumbloop").rglob("*.proto"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={google}",
        f"--plugin=protoc-gen-mypy={Path(sys.executable).with_name('protoc-gen-mypy')}",
        f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).with_name('protoc-gen-mypy_grpc')}",
        f"--python_out={output}",
        f"--grpc_python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--mypy_grpc_out=quiet:{output}",
        *sources,
    ]
    subprocess.run(command, cwd=PROTOS, check=True)
    drop_stubs_without_services(output)
    for folder in [output / "thumbloop", *(p for p in (output / "thumbloop").rglob("*") if p.is_dir())]:
        (folder / "__init__.py").touch()
    (output / "thumbloop" / "py.typed").touch()


def drop_stubs_without_services(output: Path) -> None:
    """protoc writes an empty gRPC file for each proto; only those of services are kept."""
    for stub in output.rglob("*_pb2_grpc.py"):
        if "Servicer" not in stub.read_text():
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PROTOS / "gen")
    generate(parser.parse_args().output)
