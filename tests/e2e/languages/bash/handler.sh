#!/bin/bash
case "$Http_Path" in
  /echo) cat ;;
  /stream) echo one; sleep 0.5; echo two ;;
  /sleep) sleep "$(cat)"; printf slept ;;
  /request) printf '["%s", "%s", "%s", "%s"]' "$Http_Method" "$Http_Path" "$Http_Query" "$Http_X_Test" ;;
  /context) printf '{"function": "%s", "namespace": "%s", "call": "%s"}' "$OPENFAAS_NAME" "$OPENFAAS_NAMESPACE" "$Http_X_Call_Id" ;;
  /secret) cat "$STOKER_SECRETS/api-key" ;;
  /print) cat >&2; echo >&2; printf printed ;;
esac
