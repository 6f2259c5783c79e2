"""Storage for `pvc://`: makes a volume for each claim of the class `standard`, and removes it with its data.

`python -m local_cluster.provisioner KUBECONFIG FOLDER`. A volume is a folder on the machine, mounted as
`hostPath`. The provisioner inside kube-controller-manager would do, but for two things: it makes folders that
only root can write, and it refuses ReadWriteMany, which the workers of a gang need.

Level-triggered: each round lists claims and volumes and does what is missing, so a restart needs no memory.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from local_cluster.login import connect
from local_cluster.rest import Object, Rest, RestError

CLASS = "standard"
NAME = "datahall.dev/host-path"
_PERIOD_SECONDS = 0.5
_MARK = "pv.kubernetes.io/provisioned-by"


def volume_for(claim: Object, folder: Path) -> Object:
    """The PersistentVolume of a claim; named by the claim's uid, so that doing it twice is a conflict and no harm."""
    meta, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{meta['uid']}"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {_MARK: NAME}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "hostPath": {"path": str(folder / _folder_name(claim)), "type": "Directory"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
        },
    }


def _folder_name(claim: Object) -> str:
    """Readable for a person who looks for the data, unique by the uid."""
    meta = claim["metadata"]
    return f"{meta['namespace']}_{meta['name']}_{meta['uid']}"


def wanted(claims: list[Object], volumes: list[Object]) -> Iterator[Object]:
    """Claims of our class that wait for a volume and have none yet."""
    made = {volume["metadata"]["name"] for volume in volumes}
    for claim in claims:
        spec = claim["spec"]
        if (
            spec.get("storageClassName") == CLASS
            and not spec.get("volumeName")
            and "deletionTimestamp" not in claim["metadata"]
            and f"pvc-{claim['metadata']['uid']}" not in made
        ):
            yield claim


def released(volumes: list[Object]) -> Iterator[Object]:
    """Volumes of ours whose claim is gone."""
    for volume in volumes:
        ours = volume["metadata"].get("annotations", {}).get(_MARK) == NAME
        if ours and volume.get("status", {}).get("phase") == "Released":
            yield volume


def round_of_work(rest: Rest, folder: Path) -> None:
    """Make what is wanted, remove what is released."""
    claims = rest.call("GET", "/api/v1/persistentvolumeclaims?resourceVersion=0")["items"]
    volumes = rest.call("GET", "/api/v1/persistentvolumes?resourceVersion=0")["items"]
    for claim in wanted(claims, volumes):
        volume = volume_for(claim, folder)
        place = Path(volume["spec"]["hostPath"]["path"])
        place.mkdir(parents=True, exist_ok=True)
        # hostPath volumes know no fsGroup: whoever the pod runs as must be able to write.
        place.chmod(0o777)
        try:
            rest.call("POST", "/api/v1/persistentvolumes", volume)
            print(f"made {place}", flush=True)
        except RestError as error:
            if error.status != 409:
                raise
    for volume in released(volumes):
        place = Path(volume["spec"]["hostPath"]["path"])
        if place.parent == folder and re.fullmatch(
            r"[\w.-]+", place.name
        ):  # never follow a path out of our folder
            shutil.rmtree(place, ignore_errors=True)
        try:
            rest.call("DELETE", f"/api/v1/persistentvolumes/{volume['metadata']['name']}")
            print(f"removed {place}", flush=True)
        except RestError as error:
            if error.status != 404:
                raise


def main() -> None:
    """Work until ended. What goes wrong is said and tried again: the API server may be restarting."""
    rest, folder = connect(Path(sys.argv[1])), Path(sys.argv[2])
    while True:
        try:
            round_of_work(rest, folder)
        except (OSError, RestError) as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            time.sleep(1)
        time.sleep(_PERIOD_SECONDS)


if __name__ == "__main__":
    main()
