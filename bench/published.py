"""What FGD's authors published for the same lists: how far a run here is from theirs says whether to believe it.

Source: `experiments/analysis/expected_results/analysis_allo_discrete.csv` of hkust-adsl/kubernetes-scheduler-simulator
(Apache-2.0), means over its seeds 42 to 51. It has no figures for cpu037, cpu072, cpu235, cpu300, gpushare20 and
gpuspec05.
"""

POLICIES = ("random", "dotprod", "gpuclustering", "gpupacking", "bestfit", "fgd")

_MEANS = """
cpu050      91.24/89.02 93.27/93.03 93.79/93.52 93.72/93.46 93.79/93.56 95.21/95.00
cpu100      89.11/87.44 91.95/91.73 92.64/92.42 92.72/92.50 93.44/93.26 95.35/95.21
cpu200      83.77/83.03 87.70/87.45 89.92/89.67 90.22/89.98 92.40/92.15 95.05/94.82
cpu250      80.42/80.00 83.81/83.57 87.99/87.75 88.28/88.05 91.45/91.21 93.41/93.20
default     87.47/86.30 90.85/90.62 91.88/91.65 92.00/91.78 93.08/92.86 95.39/95.23
gpushare100 79.44/78.90 82.42/81.98 82.65/82.22 82.57/82.13 85.01/84.62 86.90/86.64
gpushare40  86.00/84.86 89.56/89.30 90.02/89.76 90.03/89.77 91.69/91.44 94.15/93.96
gpushare60  83.65/82.81 87.11/86.82 87.20/86.90 87.45/87.15 89.36/89.06 91.40/91.25
gpushare80  81.22/80.62 84.49/84.14 84.85/84.50 85.00/84.65 87.01/86.66 89.30/89.08
gpuspec10   87.43/86.26 90.39/90.17 92.18/91.96 92.46/92.24 93.30/93.10 94.95/94.66
gpuspec20   87.24/85.90 89.97/88.29 92.25/89.11 92.94/89.28 93.30/88.46 94.84/94.66
gpuspec25   86.94/85.42 89.63/85.44 92.08/86.41 92.98/86.77 93.23/85.67 94.74/93.91
gpuspec33   86.46/83.87 89.14/79.82 92.12/81.09 93.22/82.22 93.09/80.39 94.55/87.84
multigpu20  88.69/86.92 92.06/91.85 93.56/93.34 93.71/93.50 93.93/93.73 95.65/95.53
multigpu30  89.27/86.63 93.28/93.11 94.72/94.55 94.87/94.70 94.72/94.57 96.46/96.36
multigpu40  90.09/85.38 94.19/94.04 95.50/95.35 95.74/95.59 95.23/95.10 96.99/96.91
multigpu50  90.27/81.28 94.85/94.73 95.81/95.69 96.18/96.06 95.74/95.62 97.18/97.09
"""
# Per list and policy: GPUs allocated at 130 % and at 100 % arrived, per cent.

ALLOCATED_PERCENT: dict[tuple[str, str], dict[int, float]] = {
    (trace, policy): {130: float(at_130), 100: float(at_100)}
    for trace, *cells in map(str.split, _MEANS.strip().splitlines())
    for policy, cell in zip(POLICIES, cells, strict=True)
    for at_130, at_100 in [cell.split("/")]
}
"""Mean GPUs allocated in per cent of all, by (list, policy) and by per cent arrived."""
