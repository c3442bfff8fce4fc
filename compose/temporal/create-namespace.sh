#!/bin/sh
# One task: create the namespace once the server answers. May run again.
set -eu

# The server comes from TEMPORAL_ADDRESS and the namespace from TEMPORAL_NAMESPACE, which the commands read themselves.
attempt=0
until temporal operator cluster health; do
  attempt=$((attempt + 1))
  if [ "$attempt" -ge 30 ]; then
    echo "Temporal at $TEMPORAL_ADDRESS did not answer after $attempt attempts" >&2
    exit 1
  fi
  sleep 2
done
temporal operator namespace describe -n "$TEMPORAL_NAMESPACE" ||
  temporal operator namespace create -n "$TEMPORAL_NAMESPACE" --retention 30d
