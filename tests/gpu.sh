#!/usr/bin/env bash
# Measures a GPU: installs, runs the tests, trains, evaluates on both devices, trains replicates.
#
#     tests/gpu.sh                # on a GPU, with MNIST in data/: about 10 minutes
#     tests/gpu.sh cpu 60 data    # the same steps on the CPU, with 60 iterations
#
# Everything happens in a temporary copy of the project. PYTHON names a Python that has the packages;
# without it, they are installed into a new environment.
set -euo pipefail
device=${1:-cuda} iterations=${2:-20000} data=${3:-data}
data=$(realpath "$data")
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r codebase tests checkpoints .github LICENSE run_*.py requirements.txt README.md pyproject.toml "$folder"
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

timed importing "$python" -c "from codebase.machine import tuning; tuning.load_torch()"
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
evaluation = float(times[f"vae-0-evaluate-{device}"]) - float(times["importing"])
print(f"Evaluating a VAE, beyond importing: {evaluation:.1f} s (goal: 3)")
print(f"100 VAEs one after another, ten times ten: {10 * float(times['replicates']):.0f} s (goal: 60)")


def metrics(name):
    lines = Path(f"{name}.out").read_text().splitlines()
    report = [line for line in lines if re.match("NELBO|Negative|Test set", line)]
    return [float(x) for line in report for x in re.findall(r"-?\d+\.\d+", line.replace("IWAE-", ""))]


# Another device has other draws, which change bounds by 0.3 nats at most, and accuracies hardly.
for name in sorted(times):
    if name.endswith(f"-evaluate-{device}"):
        one, other = metrics(name), metrics(name.removesuffix(device) + "cpu")
        apart = max(abs(a - b) for a, b in zip(one, other, strict=True))
        print(f"{name}: at most {apart:.4f} from the CPU's metrics")
        assert apart < (0.002 if name.startswith("ssvae") else 0.6), (one, other)
P
