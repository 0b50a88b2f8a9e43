#!/usr/bin/env bash
# What a GPU gives: installs, tests, trains, evaluates on both devices, replicates; prints a table.
#
#     tests/gpu.sh                        # on a GPU, with data/ beside it
#     tests/gpu.sh cpu 60 ../shared/data  # the same steps on the CPU, in a few minutes
#
# Everything happens in a temporary copy of the project.
set -euo pipefail
device=${1:-cuda} iterations=${2:-20000} data=${3:-data}
data=$(realpath "$data")
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r codebase tests checkpoints run_*.py requirements.txt README.md pyproject.toml "$folder"
cd "$folder"
rm -rf checkpoints/model* logs

python=${PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet -r requirements.txt
    python=.venv/bin/python
fi
if [ "$device" != cpu ]; then
    "$python" -m pytest -q -n auto
fi

timed() {  # name, command: its time in seconds, in times.txt
    local name=$1 start
    shift
    start=$(date +%s.%N)
    "$@" > "$name.out" 2> "$name.err" || { cat "$name.err"; exit 1; }
    awk -v name="$name" -v start="$start" -v end="$(date +%s.%N)" \
        'BEGIN { print name, end - start }' >> times.txt
}

for compile in 0 1; do
    for model in vae gmvae ssvae; do
        flags=(--data_dir "$data" --iter_max "$iterations" --run "$compile" --seed 0)
        flags+=(--compile "$compile")
        timed "$model-$compile-train" "$python" "run_$model.py" "${flags[@]}" --device "$device"
        for other in "$device" cpu; do
            timed "$model-$compile-evaluate-$other" "$python" "run_$model.py" "${flags[@]}" --train 0 --device "$other"
        done
    done
done
timed replicates "$python" run_vae.py --data_dir "$data" --iter_max "$iterations" --run 2 --replicates 10 --device "$device"

"$python" - "$device" <<'P'
import re, sys
from pathlib import Path

import torch

device = sys.argv[1]
print("device:", torch.cuda.get_device_name() if device.startswith("cuda") else device)
times = dict(line.split() for line in Path("times.txt").read_text().splitlines())
print("| command | seconds |\n|---|---|")
for name, seconds in times.items():
    print(f"| {name} | {float(seconds):.1f} |")


def metrics(name):
    lines = Path(f"{name}.out").read_text().splitlines()
    report = [line for line in lines if re.match("NELBO|Negative|Test set", line)]
    return [float(x) for line in report for x in re.findall(r"-?\d+\.\d+", line.replace("IWAE-", ""))]


# Other draws on another device: means over 100 images move by 0.2 nats, accuracies not at all.
for name in sorted(times):
    if name.endswith(f"-evaluate-{device}"):
        one, other = metrics(name), metrics(name.removesuffix(device) + "cpu")
        apart = max(abs(a - b) for a, b in zip(one, other, strict=True))
        print(f"{name}: at most {apart:.4f} from the CPU's metrics")
        assert apart < 1, (one, other)
P
