"""The custom resources of Datahall: pydantic models, the one source of `crds/` and of the API reference.

Everything here is data and pure functions over data: no I/O (but for the two generators' `__main__`) and no clock.
"""

from typing import Final

GROUP: Final = "datahall.dev"
"""The API group of every kind, and the prefix of every label and annotation."""

VERSION: Final = "v1alpha1"
"""The one version served and stored."""

API_VERSION: Final = "datahall.dev/v1alpha1"
"""What `apiVersion` says in every object of ours."""
