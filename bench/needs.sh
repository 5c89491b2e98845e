#!/bin/sh
# Programs that the benchmark runs beside ours. As root on Debian they are installed; elsewhere the missing ones are named.
set -eu
missing=""
for program in wrk nginx taskset node go; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing for the benchmark:$missing"
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(echo "$missing" | sed -e "s,taskset,util-linux,; s,node,nodejs,; s,\bgo\b,golang-go,") >/dev/null
else
  echo "the benchmark needs these programs, please install them:$missing" >&2
  exit 1
fi
