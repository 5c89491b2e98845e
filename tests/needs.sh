#!/bin/sh
# Programs that the tests run beside ours. As root on Debian they are installed; elsewhere the missing ones are named.
set -eu
missing=""
if [ "${STOKER_TEST_CLUSTER:-}" = 1 ] && [ -z "${KUBECONFIG:-}" ]; then
  "${0%/*}/cluster/build"  # minutes, once for a machine: too long for a test to wait
fi
need() { # PROGRAM PACKAGE
  command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need wrk wrk
need curl curl
need node nodejs
need npm npm
need go golang-go
need gofmt golang-go
need ruby ruby
need docker-registry docker-registry
need htpasswd apache2-utils
need chromium chromium
command -v ruby >/dev/null 2>&1 && ruby -e 'require "webrick"; require "minitest"' 2>/dev/null || missing="$missing ruby-webrick ruby-minitest"
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
  echo "the tests need these packages of Debian, please install them or their like:$missing" >&2
  exit 1
fi
