# One task: run the features of a program of PostgreSQL through the proxy and directly, then its loop of numbered writes; a JSON line for each.
# A feature that works through the proxy is run directly only where that is asked for: the direct run says whether a failure is the program's own.
# The caller has a function for each feature, which ends with another code than 0 and says why when it does not work; what has none is what it lacks.

ITEMS="${CLIENT}_items"
LOOP="${CLIENT}_loop"
SLEEP="SELECT pg_sleep(30) /* cancel $CLIENT */"
RUNNING="SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '$SLEEP'"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

run() {
  local feature
  for feature in "$@"; do
    if [ "$(type -t "feature_$feature")" != function ]; then
      printf '{"via":"proxy","feature":"%s","ok":null}\n' "$feature"
    else
      told proxy "$feature" "$PROXY_PORT" "$NOTIFY_WAIT_MS_PROXY"
      if [ "$worked" = false ] || [ "${DIRECT:-}" = all ]; then
        told direct "$feature" "$DIRECT_PORT" "$NOTIFY_WAIT_MS_DIRECT"
      fi
    fi
  done
  export PGPORT="$PROXY_PORT"
}

# Runs the feature, tells its outcome, and notes in `worked` whether it did. Not for a condition: in one, bash goes on behind a failure.
told() {
  local via=$1 feature=$2 detail
  export PGPORT=$3 NOTIFY_WAIT_MS=$4
  # A shell of its own, which ends at the first failure.
  detail=$(set -e; "feature_$feature" 2>&1)
  if [ $? = 0 ]; then
    worked=true
    printf '{"via":"%s","feature":"%s","ok":true}\n' "$via" "$feature"
  else
    worked=false
    printf '{"via":"%s","feature":"%s","ok":false,"detail":"%s"}\n' "$via" "$feature" "$(escaped "$detail")"
  fi
}

escaped() { printf '%s' "$1" | tr -c '[:alnum:][:space:].,:;()<>=_/+*-' ' ' | tr '\n\t\r' '   ' | tail -c 600; }

same() { [ "$1" = "$2" ] || { echo "found $1, expected $2"; return 1; }; }

# Encrypted, and only with a server that this authority has certified.
verified() {
  local authority=$1
  shift
  PGSSLMODE=verify-full PGSSLROOTCERT="$authority" "$@"
}

# Without notices; fails at the first error.
ask() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }

# The line of the loop: whether it worked, why not, and how many writes were acknowledged.
say_cutover() {
  printf '{"via":"proxy","feature":"cutover","ok":%s,"detail":"%s","acknowledged":%s}\n' "$1" "$(escaped "$2")" "$3"
}
