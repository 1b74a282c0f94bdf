#!/usr/bin/env bash
# A real Slurm of one node, on this machine, to try job scripts before a cluster sees them. Debian and Ubuntu, as root.
#
#     scripts/one_node_slurm.sh start [FOLDER]     install what is missing, write the configuration, start the daemons
#     scripts/one_node_slurm.sh stop [FOLDER]      end the daemons
#
# Everything lies in FOLDER (default /tmp/one-node-slurm); `export SLURM_CONF=FOLDER/slurm.conf` lets sbatch find it. No accounting, no cgroups: jobs
# are told apart by Linux process trees, and may use more than they asked for.
set -euo pipefail

action=${1:-}
folder=${2:-/tmp/one-node-slurm}
name=$(hostname -s)

running() { [ -s "$folder/$1.pid" ] && kill -0 "$(cat "$folder/$1.pid")" 2>/dev/null; }

install_missing() {
    local need=() program
    for program in munged slurmctld slurmd; do command -v "$program" >/dev/null || need+=("$program"); done
    if [ "${#need[@]}" -eq 0 ]; then return; fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client >/dev/null
}

configure() {
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    if [ ! -s "$folder/munge.key" ]; then
        (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    fi
    cat >"$folder/slurm.conf" <<EOF
ClusterName=one
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=$name NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo) State=UNKNOWN
PartitionName=all Nodes=$name Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
EOF
}

start() {
    install_missing
    configure
    export SLURM_CONF=$folder/slurm.conf
    if ! running munged; then
        rm -f "$folder/munge.socket"
        munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
            --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
    fi
    running slurmctld || slurmctld -f "$SLURM_CONF"
    running slurmd || slurmd -f "$SLURM_CONF"
    for _ in $(seq 60); do
        if [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; then
            sinfo
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 1
    done
    echo "The node did not come up within a minute; see the logs in $folder." >&2
    exit 1
}

stop() {
    local daemon
    for daemon in slurmd slurmctld munged; do
        if running "$daemon"; then kill "$(cat "$folder/$daemon.pid")"; fi
    done
}

case $action in
    start) start ;;
    stop) stop ;;
    *)
        sed -n '2,8p' "$0" | sed 's/^# \?//' >&2
        exit 2
        ;;
esac
