# Read by the scripts of this folder: where the cluster of the tests keeps its programs and its state, and its addresses.
# All can be set from outside. The Kubernetes is old on purpose: it is the oldest release that the project promises to run on.
KUBE_VERSION=v1.20.2
CLUSTER_PROGRAMS=${STOKER_CLUSTER_PROGRAMS:-/var/cache/stoker-cluster/$KUBE_VERSION}
CLUSTER_RUN=${STOKER_CLUSTER_RUN:-/tmp/stoker-cluster}
REGISTRY_PORT=${STOKER_CLUSTER_REGISTRY_PORT:-5000}
API_PORT=${STOKER_CLUSTER_API_PORT:-6443}
ETCD_PORT=${STOKER_CLUSTER_ETCD_PORT:-23790}
NODE_IP=172.31.255.1     # not loopback: pods reach the API server and the registry by it
POD_CIDR=10.244.0.0/24
SERVICE_CIDR=10.96.0.0/16
DOCKER=/usr/bin/docker   # Debian's client has BuildKit built in; another one on PATH may want the buildx plug-in
export DOCKER_HOST=${DOCKER_HOST:-unix://$CLUSTER_RUN/docker/docker.sock}
NO_SERVICES=/usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive

install_missing() ( # install_missing PACKAGE...: those of Debian that are not there
  missing=()
  for package; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  ((${#missing[@]})) || exit 0
  if [[ ! -e $NO_SERVICES ]]; then  # what is installed is for the tests to start, not for the machine
    trap 'rm -f "$NO_SERVICES"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$NO_SERVICES"
    chmod +x "$NO_SERVICES"
  fi
  apt-get update -qq >/dev/null
  apt-get install -yqq --no-install-recommends "${missing[@]}" >/dev/null
)

start() { # start NAME COMMAND...: unless it runs; detached, its output in log/NAME, its process id in pid/NAME
  local name=$1 pid; shift
  pid=$(cat "$CLUSTER_RUN/pid/$name" 2>/dev/null) && kill -0 "$pid" 2>/dev/null && return
  setsid "$@" >"$CLUSTER_RUN/log/$name" 2>&1 </dev/null 9>&- &
  echo $! >"$CLUSTER_RUN/pid/$name"
}

stop() { # stop NAME...: those that `start` started, each waited for, and killed when it does not end
  local name pid
  for name; do
    pid=$(cat "$CLUSTER_RUN/pid/$name" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || continue 2; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null
  done
}

alone() { # alone NAME: wait until nobody else does the same; over when the script ends
  exec 9>"/tmp/stoker-cluster-$1.lock"
  flock 9
}

until_true() { # until_true SECONDS COMMAND...: asks twice a second
  local turns=$(($1 * 2)); shift
  for _ in $(seq "$turns"); do "$@" >/dev/null 2>&1 && return; sleep 0.5; done
  echo "cluster: waited in vain for: $*; see $CLUSTER_RUN/log" >&2
  return 1
}
