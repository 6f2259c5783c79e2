"""A real Kubernetes on one Linux machine, for the quick start, the tests and the benchmarks.

Two modes share the binaries (`binaries`) and the way programs are started and ended (`processes`):

* **api** (`api`): etcd and the API server, with controller manager, scheduler and KWOK where asked. No root, no
images,
  ready in seconds, several side by side. The fixture of most tests.
* **full** (`cluster`): one node in a network namespace of its own, with containerd and a kubelet that runs pods,
cluster
  DNS, Services, storage and eight simulated GPUs.

Only the standard library is imported here: this room must work before anything is installed.
"""
