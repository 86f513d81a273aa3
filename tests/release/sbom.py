"""Write the SBOM that the wheel carries (PEP 770), or say how it differs: `make docs`.

It lists what `pyproject.toml` declares: the wheel holds this project alone, and pip chooses the
versions of all else. Runs in `.release`, which has CycloneDX's library.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["document", "main"]

ROOT = Path(__file__).parents[2]
KINDS = {
    "Issues": ExternalReferenceType.ISSUE_TRACKER,
    "Source": ExternalReferenceType.VCS,
    "Homepage": ExternalReferenceType.WEBSITE,
    "Documentation": ExternalReferenceType.DOCUMENTATION,
    "Changelog": ExternalReferenceType.RELEASE_NOTES,
    "Security": ExternalReferenceType.SECURITY_CONTACT,
}


def product(project: dict[str, object]) -> Component:
    name, version = str(project["name"]), str(project["version"])
    urls = project["urls"]
    assert isinstance(urls, dict)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=name,
        description=str(project["description"]),
        licenses=[LicenseExpression(str(project["license"]))],
        purl=PackageURL("pypi", name=name, version=version),
        external_references=[
            ExternalReference(type=KINDS[label], url=XsUri(url)) for label, url in urls.items()
        ],
    )


def dependency(text: str, extra: str = "") -> Component:
    """Return a declared package; without a version, as none comes with the wheel."""
    wanted = Requirement(text)
    name = canonicalize_name(wanted.name)
    properties = [Property(name="pypi:requirement", value=text)]
    if extra:
        properties.append(Property(name="pypi:extra", value=extra))
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        bom_ref=f"{name}[{extra}]" if extra else name,
        scope=ComponentScope.OPTIONAL if extra else ComponentScope.REQUIRED,
        purl=PackageURL("pypi", name=name),
        properties=properties,
    )


def document(pyproject: str) -> str:
    """Return the SBOM: the same text for the same declarations, so without a time."""
    project = tomllib.loads(pyproject)["project"]
    bom = Bom()
    bom.metadata.component = root = product(project)
    bom.serial_number = uuid5(NAMESPACE_URL, root.purl.to_string())
    needed = [dependency(text) for text in project["dependencies"]]
    for extra, texts in project["optional-dependencies"].items():
        needed += [dependency(text, extra) for text in texts]
    bom.components.update(needed)
    bom.register_dependency(root, needed)
    bom.metadata.timestamp = None
    text = f"{JsonV1Dot6(bom).output_as_string(indent=2)}\n"
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"CycloneDX's schema refuses the SBOM: {fault}")
    return text


def main() -> None:
    path, *check = sys.argv[1:]
    text = document((ROOT / "pyproject.toml").read_text())
    if not check:
        Path(path).write_text(text)
    elif text != Path(path).read_text():
        sys.exit(f"{path} is not what pyproject.toml declares; run `make docs`")


if __name__ == "__main__":
    main()
