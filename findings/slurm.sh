#!/usr/bin/env bash
# findings/slurm.sh [COMMAND...]: start a real Slurm on this machine, run a command, and stop Slurm. Needs root on Debian.
#
# Without a command, it checks this:
# Guess: --signal=USR1@60 of sbatch warns the program that the batch script runs, and --requeue brings the job back.
# Slurm 22.05.8 (Debian 12): the signal reaches only what srun has started. Such a program may end with 138; the job is
# then FAILED and never requeued by itself. Seen: "plain: 0 signals", "srun: 1 signals, FAILED 138:0, 0 restarts".
set -euo pipefail

packages=(slurmctld=22.05.8-4+deb12u3 slurmd=22.05.8-4+deb12u3 slurm-client=22.05.8-4+deb12u3 munge=0.5.15-2+deb12u1)
dpkg -s slurmctld slurmd slurm-client munge > /dev/null 2>&1 || {
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}"
} > /dev/null

folder=$(mktemp -d)
chmod 755 "$folder"
mkdir "$folder/state" "$folder/spool"
export SLURM_CONF="$folder/slurm.conf"
cat > "$SLURM_CONF" << END
ClusterName=here
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=3600
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=16 RealMemory=16000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE
END

stop() {
    scancel --quiet --user root || true
    for name in slurmd slurmctld munged; do
        [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" || true
    done
    sleep 1
    rm -rf "$folder"
}
trap stop EXIT
dd if=/dev/urandom of="$folder/key" bs=1024 count=1 status=none
chmod 400 "$folder/key"
munged --force --key-file="$folder/key" --socket="$folder/munge" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/seed"
slurmctld
slurmd
for _ in $(seq 60); do
    sinfo --noheader --format=%t 2> /dev/null | grep -q idle && break
    sleep 1
done

if [ $# -gt 0 ]; then
    "$@"
    exit
fi

cd "$folder"
cat > counts.py << END
import signal, sys, time
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
while not seen and time.sleep(1) is None:
    open(sys.argv[1], "w").write("0")
open(sys.argv[1], "w").write("1")
sys.exit(138)
END
flags=(--time=2 --signal=USR1@60 --requeue --output=/dev/null --parsable)
plain=$(sbatch "${flags[@]}" --wrap "python3 counts.py plain; true")
steps=$(sbatch "${flags[@]}" --wrap "srun python3 counts.py srun")
while squeue --noheader | grep -q .; do sleep 2; done
about() { scontrol show job "$1" | grep -oE "(JobState|Restarts|ExitCode)=\S+" | tr '\n' ' '; }
seen="plain: $(cat plain) signals; srun: $(cat srun) signals, $(about "$steps")"
echo "$seen ($(about "$plain"))"
[ "$seen" = "plain: 0 signals; srun: 1 signals, JobState=FAILED Restarts=0 ExitCode=138:0 " ] || exit 1
