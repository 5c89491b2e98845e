#!/bin/bash
set -eu
answer=$(echo hello | bash handler.sh)
[ "$answer" = "You sent: hello" ] || { echo "got: $answer"; exit 1; }
echo "ok"
