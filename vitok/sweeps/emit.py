"""Scripts that run a sweep elsewhere: SLURM, TPU pods, xpk, or a local shell.

Every script runs the same command as a person would, `python -m vitok.sweep
run`, and believes only the workdir: a unit has succeeded when
`python -m vitok.sweep status --index=i --check` says so (0: DONE, 4: failed
too often, 5: after a unit that is not done, anything else: go on), whatever the
exit code of what ran it. Stopped and failed units are started again and resume;
one that is refused (exit code 2: its config, its data) is not, since it would
be refused again. When all units have ended, `run --finish` computes the null
models and writes the report.

The workdir must be one path for all machines: a shared folder or `gs://`.
"""

import os
import pathlib
import shlex
import string
import sys
from collections.abc import Sequence

from vitok import errors
from vitok.sweeps.experiment import Experiment


class _Script(string.Template):
  """`@@name` is replaced; a shell's own `$name` and `[@]` are left alone."""
  delimiter = '@@'


_HEAD = r'''#!/usr/bin/env bash
# @@about
# Written by: @@written
'''

_COMMON = r'''
set -euo pipefail
cd @@folder
sweep=("${PYTHON:-@@python}" -m vitok.sweep)
what=(@@what)
units=@@units
attempts=${ATTEMPTS:-@@attempts}  # Of each unit.

# Whether to leave it alone: it is DONE (code 0) or fails each time (code 4).
# Code 5: it is after a unit that is not done.
ended() {
  code=0
  "${sweep[@]}" status "${what[@]}" --check "$1" >/dev/null || code=$?
  [[ $code == 0 || $code == 4 ]]
}
'''

_TELL = r'''
# Says that $1 ended with $code; what was refused once will be again.
tell() {
  echo "$1: exit code $code" >&2
  if [[ $code == 2 ]]; then exit 2; fi
}
'''

_LOCAL = _HEAD + _COMMON + _TELL + r'''
job=
# The sweep saves and leaves with exit code 0, and so do we.
trap '
  for job in $(jobs -p); do kill -TERM "$job" && wait "$job"; done
  exit 0
' TERM

for ((attempt = 1; attempt <= attempts; attempt++)); do
  "${sweep[@]}" run "${what[@]}" --jobs="${JOBS:-@@jobs}" &
  wait "$!" || { code=$?; tell "attempt $attempt"; }
  if ended --index=all; then exit "$code"; fi
done
echo "not all of $units units are done after $attempts attempts" >&2
exit 1
'''

_SLURM = _HEAD + r'''#SBATCH --job-name=@@name
#SBATCH --nodes=@@nodes
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=@@time
#SBATCH --requeue
#SBATCH --signal=@@signal
#SBATCH --open-mode=append
#
# Start it on a login node with `bash`: it submits itself as an array, one
# element a unit, and then a job that writes the report. What your cluster
# wants besides goes into sbatch's own variables:
#   SBATCH_PARTITION=gpu SBATCH_GPUS_PER_NODE=8 bash slurm.sh
#
# --signal sends SIGTERM to the running step @@grace s before the time limit, as
# a preemption does: the unit saves, leaves with exit code 0 and is put back
# into the queue.
script=$(realpath "$0")
''' + _COMMON + _TELL + r'''
case ${1:-submit} in
  submit)
    mkdir -p @@logs
    echo "$units units"
    waves=(@@waves)
    after=()  # What is after other units waits until these have ended.
    for wave in "${waves[@]}"; do
      array=$(sbatch --parsable --array="$wave%${PARALLEL:-@@parallel}" \
        "${after[@]}" --output=@@logs/%A_%a.log "$script" unit)
      after=(--dependency="afterany:${array%%;*}")
    done
    sbatch "${after[@]}" --nodes=1 \
      --output=@@logs/finish_%j.log "$script" finish
    exit
    ;;
  finish) exec srun "${sweep[@]}" run "${what[@]}" --finish ;;
esac

trap : TERM  # The step gets it too; we wait for it and look what it left.
index=$SLURM_ARRAY_TASK_ID
run=("${sweep[@]}" run "${what[@]}" --index="$index")
if [[ ${SLURM_NNODES:-1} -gt 1 ]]; then run+=(--distributed); fi
srun --kill-on-bad-exit=1 "${run[@]}" || { code=$?; tell srun; }
if ended --index="$index" || [[ $code == 5 ]]; then exit "$code"; fi
if ((${SLURM_RESTART_COUNT:-0} + 1 >= attempts)); then
  echo "unit $index is not done after $attempts attempts" >&2
  exit 1
fi
scontrol requeue "$SLURM_JOB_ID"
'''

_TPU = _HEAD + r'''#
# Creates a TPU VM or pod, runs the units on all of its workers, and deletes it.
#   ZONE=us-east5-a ACCELERATOR_TYPE=v5litepod-16 bash tpu.sh
# CREATE_OPTIONS="--spot" goes to its creation.
''' + _COMMON + _TELL + r'''
name=${TPU_NAME:-@@name}
zone=${ZONE:?the zone of the TPU, as us-east5-a}
type=${ACCELERATOR_TYPE:?the kind and size of the TPU, as v5litepod-16}
version=${RUNTIME_VERSION:-v2-alpha-tpuv5-lite}
read -ra create <<<"${CREATE_OPTIONS:-}"
# Images have an older Python than vitok needs; uv fetches this one.
remote_python=${REMOTE_PYTHON:-3.11}
archive=$(mktemp -d)/vitok.tgz

# In the background, since a trap waits for what is in the foreground.
tpu() {
  gcloud compute tpus tpu-vm "$1" --zone="$zone" "${@:2}" &
  wait "$!"
}
everywhere() { tpu ssh "$name" --worker=all --command="$1"; }
quoted=$(printf '%q ' "${what[@]}")
@@data
run="env $data .venv/bin/python -m vitok.sweep run $quoted"

# A pod in any state but READY has been preempted or is broken. What is on a
# READY one is not known: it gets vitok at the start and after each failure.
installed=
make_ready() {
  local state
  state=$(tpu describe "$name" --format='value(state)' 2>/dev/null) || state=
  if [[ $state != READY ]]; then
    installed=
    if [[ -n $state ]]; then tpu delete "$name" --quiet || return; fi
    tpu create "$name" --accelerator-type="$type" --version="$version" \
      "${create[@]}" || return
  fi
  if [[ -n $installed ]]; then return; fi
  # With .git, from which a run takes its commit.
  tar --exclude=./runs --exclude=./data --exclude=./.venv \
    --exclude=__pycache__ -czf "$archive" . || return
  tpu scp "$archive" "$name:" --worker=all || return
  everywhere "mkdir -p vitok && tar -xzf vitok.tgz -C vitok && cd vitok &&
    { [ -x ~/.local/bin/uv ] ||
      curl -LsSf https://astral.sh/uv/install.sh | sh; } &&
    ~/.local/bin/uv venv --quiet --allow-existing \
      --python $remote_python .venv &&
    ~/.local/bin/uv pip install --quiet --python .venv/bin/python \
      -e '.[tpu]'" || return
  installed=1
}

job=
# Nothing that costs money is left behind, whatever ends this script.
trap '
  trap "" TERM INT HUP
  for job in $(jobs -p); do kill "$job" 2>/dev/null || true; done
  tpu delete "$name" --quiet || echo "delete $name yourself" >&2
' EXIT
trap 'exit 143' TERM INT HUP
for ((index = 0; index < units; index++)); do
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    if ended --index="$index" || [[ $code == 5 ]]; then break; fi
    if ! make_ready; then
      echo "unit $index, attempt $attempt: no pod is ready" >&2
    elif everywhere "cd vitok && exec $run --index=$index --distributed"; then
      continue
    else
      code=$?
      tell "unit $index, attempt $attempt"
      installed=
    fi
    sleep "${PAUSE:-60}" &
    wait "$!"
  done
done
# Where the data are; one worker of a pod cannot use its TPU alone.
{ make_ready && tpu ssh "$name" --worker=0 \
  --command="cd vitok && export JAX_PLATFORMS=cpu && exec $run --finish"; } ||
  echo "no report: exit code $?" >&2
if ended --index=all; then exit "$code"; fi
echo "not all of $units units are done" >&2
exit 1
'''

_XPK = _HEAD + r'''#
# Sends each unit to a GKE cluster as a workload, in which every worker of the
# slice runs it.
#   CLUSTER=c PROJECT=p ZONE=us-east5-a TPU_TYPE=v5litepod-16 \
#     DOCKER_IMAGE=image-with-this-checkout-in-/vitok bash xpk.sh
''' + _COMMON + r'''
name=${WORKLOAD:-@@name}
where=(--cluster="${CLUSTER:?the GKE cluster}"
  --project="${PROJECT:?the project}" --zone="${ZONE:?the zone}")
type=${TPU_TYPE:?the kind and size of the TPU, as v5litepod-16}
image=${DOCKER_IMAGE:?an image in which vitok is installed}
remote_python=${REMOTE_PYTHON:-python3}  # The one of the image.
quoted=$(printf '%q ' "${what[@]}")
@@data

# A workload: its name, the environment, the flags of the command.
submit() {
  # A workload of this name that has ended is in the way.
  xpk workload delete "${where[@]}" --workload="$name-$1" --force \
    >/dev/null 2>&1 || true
  xpk workload create "${where[@]}" --workload="$name-$1" \
    --tpu-type="$type" --num-slices="${SLICES:-1}" --docker-image="$image" \
    --termination-grace-period-seconds=@@grace \
    --command="cd ${IMAGE_FOLDER:-/vitok} && exec env $data $2 \
      $remote_python -m vitok.sweep run $quoted $3"
}
await() {
  xpk workload list "${where[@]}" --wait-for-job-completion="$name-$1" \
    >/dev/null || echo "workload $name-$1: exit code $?" >&2
}

for ((attempt = 1; attempt <= attempts; attempt++)); do
  sent=()
  for ((index = 0; index < units; index++)); do
    if ! ended --index="$index" && [[ $code != 5 ]] &&
      submit "$index" "" "--index=$index --distributed"; then
      sent+=("$index")
    fi
  done
  for index in "${sent[@]}"; do await "$index"; done
  if ended --index=all; then break; fi
  sleep "${PAUSE:-60}"
done
# Where the data are; each worker computes the same, without its TPU.
{ submit finish JAX_PLATFORMS=cpu --finish && await finish; } ||
  echo "no report: exit code $?" >&2
if ended --index=all; then exit "$code"; fi
echo "not all of $units units are done" >&2
exit 1
'''

# Where the prepared data sets of TFDS are, for every worker.
_DATA = ('data=${TFDS_DATA_DIR:+'
         '$(printf "TFDS_DATA_DIR=%q" "$TFDS_DATA_DIR")}')
_TFDS = ': "${TFDS_DATA_DIR:?where every worker finds the prepared data sets}"'

_TEMPLATES = {'slurm': _SLURM, 'tpu': _TPU, 'xpk': _XPK, 'local': _LOCAL}
TARGETS = tuple(_TEMPLATES)


def emit(experiment: Experiment, workdir: str, to: str,
         options: Sequence[str] = (), *, attempts: int = 20,
         grace: int = 300, jobs: int = 1, nodes: int = 1,
         parallel: int = 8, time: str = '24:00:00',
         mounted: bool = False) -> str:
  """The text of a script that runs the sweep, from the present folder.

  Args:
    experiment: what to run.
    workdir: of the sweep, as every machine sees it.
    to: one of `TARGETS`.
    options: `--config.a.b=v` of the user, for every unit.
    attempts: how often a unit is started before it is given up.
    grace: seconds between SIGTERM and the end.
    jobs: processes of a local sweep.
    nodes: of a SLURM job.
    parallel: SLURM jobs at a time.
    time: limit of a SLURM job.
    mounted: whether a local workdir is a volume that all pods of xpk mount.

  Raises:
    InputError: an unknown target; for machines with other disks, a workdir or
      data on this one or an experiment outside the present folder.
  """
  errors.one_of('--to', to, TARGETS)
  folder, spec = pathlib.Path.cwd(), experiment.spec
  name = 'vitok-' + experiment.name.replace('_', '-')
  logs = f'{folder}/runs/logs/{name}'
  if '://' not in workdir:
    if to == 'tpu' or (to == 'xpk' and not mounted):
      raise errors.InputError(
          '--workdir', workdir, "lies on each worker's own disk, which is "
          'deleted with it', 'gs://BUCKET/FOLDER' + (
              ' or --mounted, if it is a volume' if to == 'xpk' else ''))
    workdir = str(pathlib.Path(workdir).absolute())
    logs = f'{workdir}/logs'
  sources = _sources(experiment)
  if to in ('tpu', 'xpk'):
    path = pathlib.Path(spec.partition(':')[0]).resolve()
    if not path.is_relative_to(folder.resolve()):
      raise errors.InputError('EXPERIMENT', str(path), 'is outside '
                              f'{folder}, which is what the workers get')
    spec = f'{path.relative_to(folder.resolve())}:{experiment.preset}'
    for source in sources:
      kind, _, where = source.partition(':')
      if kind != 'tfds' and where and '://' not in where and (
          not os.path.isabs(where)):
        raise errors.InputError(
            'config.data.sources', source, 'lies in the present folder, not '
            'on the workers', f'{kind}:/where/every/worker/mounts/it')
  tfds = any(source.startswith('tfds:') for source in sources)
  what = [spec, f'--workdir={workdir}', *options]
  written = shlex.join(['python', '-m', 'vitok.sweep', 'emit', *what,
                        f'--to={to}'])
  return _Script(_TEMPLATES[to]).substitute(
      about=f'{experiment.name}:{experiment.preset}, '
      f'{len(experiment.units)} units.',
      written=' '.join(written.split()), folder=shlex.quote(
          str(folder)), python=sys.executable, what=shlex.join(what),
      units=len(experiment.units), attempts=attempts, grace=grace, jobs=jobs,
      waves=' '.join(_ranges(wave) for wave in experiment.waves()), nodes=nodes,
      parallel=parallel, time=time, signal=f'TERM@{grace}',
      name=name, logs=shlex.quote(logs),
      data='\n'.join([_TFDS] * tfds + [_DATA]))


def _ranges(indices):
  """[0, 1, 2, 5] as '0-2,5', which is how SLURM counts."""
  runs = []
  for index in indices:
    if runs and runs[-1][1] == index - 1:
      runs[-1][1] = index
    else:
      runs.append([index, index])
  return ','.join(f'{first}' if first == last else f'{first}-{last}'
                  for first, last in runs)


def _sources(experiment):
  """All that the units read."""
  found = {}
  for unit in experiment.units:
    config = experiment.resolve(unit)
    found |= dict.fromkeys([*config.data.sources, config.evaluation.source])
  return [source for source in found if source]
