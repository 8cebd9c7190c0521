#!/usr/bin/env bash
# A real Slurm of one node with two pretended GPUs, for the tests marked "slurm". Debian or Ubuntu, as root.
#   slurm.sh start STATE   installs the packages if they are missing, starts the daemons; STATE/env is to be sourced
#   slurm.sh stop STATE
# Exit code 77: it cannot be had here.
set -euo pipefail
action=$1 state=$2
export SLURM_CONF=$state/slurm.conf
install -d "$state"

install_packages() {
    command -v slurmctld >/dev/null && command -v munged >/dev/null && return
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 77
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge; } \
        >"$state/install.log" 2>&1 </dev/null || exit 77
}

write_configuration() {
    local host cores gpus="Count=2"
    host=$(hostname -s) cores=$(nproc)
    [ -c /dev/tty0 ] && [ -c /dev/tty1 ] && gpus="File=/dev/tty[0-1]"
    echo "Name=gpu $gpus" >"$state/gres.conf"
    cat >"$SLURM_CONF" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
SlurmctldPort=36817
SlurmdPort=36818
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
KillWait=5
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=1000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    echo "export SLURM_CONF=$SLURM_CONF" >"$state/env"
}

start() {
    install_packages
    [ "$(id -u)" = 0 ] || exit 77
    write_configuration
    install -d -o munge -g munge /run/munge
    munge -n >/dev/null 2>&1 || runuser -u munge -- "$(command -v munged || echo /usr/sbin/munged)" --force >/dev/null 2>&1
    install -d "$state/ctld" "$state/d"
    slurmctld
    sleep 1
    slurmd
    for _ in $(seq 40); do
        [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && return
        sleep 0.5
    done
    echo "the node is $(sinfo -h -o '%T %E')" >&2
    exit 77
}

stop() {
    for daemon in slurmd slurmctld; do
        [ -f "$state/$daemon.pid" ] && kill "$(cat "$state/$daemon.pid")" 2>/dev/null || true
    done
}

"$action"
