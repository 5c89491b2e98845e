#!/bin/sh
# Programs that the tests run beside ours. As root on Debian they are installed; elsewhere the missing ones are named.
set -eu
missing=""
for program in wrk curl; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing for the tests:$missing"
  # The tests start servers of their own: the package is not to make and start one for the machine.
  quiet=/etc/postgresql-common/createcluster.d/stoker-tests.conf
  mkdir -p "${quiet%/*}"
  echo "create_main_cluster = false" >"$quiet"
  trap 'rm -f "$quiet"' EXIT
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "the tests need these programs, please install them:$missing" >&2
  exit 1
fi
