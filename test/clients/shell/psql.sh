#!/usr/bin/env bash
# One task: the features of psql. It has no pool, and PREPARE is the only way to a prepared statement that all its versions have.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/report.sh"

feature_connect() {
  same "$(ask -c 'SELECT current_user, current_database()')" "$PGUSER|$PGDATABASE"
  # -w: psql asks nobody.
  if PGPASSWORD=wrong ask -w -c 'SELECT 1' >"$scratch/out" 2>&1; then echo 'a wrong password was taken'; return 1; fi
  grep -q 'password authentication failed' "$scratch/out" || { cat "$scratch/out"; return 1; }
}

feature_tls() {
  same "$(verified "$TRUSTED_CA" psql -X -A -t -c '\conninfo' | grep -c 'SSL connection')" 1
  if verified "$OTHER_CA" psql -X -c 'SELECT 1' >"$scratch/out" 2>&1; then echo 'somebody else was taken for the server'; return 1; fi
  grep -q 'certificate verify failed' "$scratch/out" || { cat "$scratch/out"; return 1; }
}

feature_prepared() {
  # In one transaction: what SQL prepares belongs to a server's session.
  same "$(ask <<<'BEGIN; PREPARE double AS SELECT $1::integer * 2; EXECUTE double(4); EXECUTE double(5); DEALLOCATE double; COMMIT;')" $'8\n10'
}

feature_transactions() {
  same "$(ask <<SQL 2>&1
DELETE FROM $ITEMS;
BEGIN; INSERT INTO $ITEMS VALUES (1, 'note'); ROLLBACK;
SELECT count(*) FROM $ITEMS;
\\set ON_ERROR_ROLLBACK on
\\set ON_ERROR_STOP off
BEGIN; INSERT INTO $ITEMS VALUES (1, 'note'); INSERT INTO $ITEMS VALUES (1, 'again');
INSERT INTO $ITEMS VALUES (2, 'note'); COMMIT;
SELECT string_agg(id::text, ',' ORDER BY id) FROM $ITEMS;
SQL
)" "0
ERROR:  duplicate key value violates unique constraint \"${ITEMS}_pkey\"
DETAIL:  Key (id)=(1) already exists.
1,2"
}

feature_copy() {
  seq 1000 | awk '{ print $1 "\tnote " $1 }' >"$scratch/rows"
  ask -c "DELETE FROM $ITEMS" -c "\\copy $ITEMS FROM '$scratch/rows'"
  ask -c "\\copy (SELECT * FROM $ITEMS ORDER BY id) TO '$scratch/copied'"
  cmp "$scratch/rows" "$scratch/copied"
}

feature_notify() {
  coproc LISTENER { ask; }
  local ends=("${LISTENER[@]}") line waited_ms=0
  echo "LISTEN $CLIENT; SELECT 'listening';" >&"${ends[1]}"
  read -r -u "${ends[0]}" line
  same "$line" listening
  ask -c "NOTIFY $CLIENT, 'hello'"
  # psql looks for notifications after each statement.
  while [ "$waited_ms" -le "$NOTIFY_WAIT_MS" ]; do
    echo "SELECT 'nothing';" >&"${ends[1]}"
    read -r -u "${ends[0]}" line
    [ "$line" = nothing ] || break
    sleep 0.1
    waited_ms=$((waited_ms + 100))
  done
  if [ "$line" = nothing ]; then
    echo 'no notification came'
    return 1
  fi
  # The answer of the statement may come first.
  grep -q "Asynchronous notification \"$CLIENT\" with payload \"hello\"" <<<"$line"
}

feature_cancel() {
  psql -X -q -A -t -c "$SLEEP" >"$scratch/out" 2>&1 &
  local sleeping=$!
  until [ "$(ask -c "$RUNNING")" = 1 ]; do sleep 0.02; done
  kill -INT "$sleeping"
  wait "$sleeping" || true
  same "$(cat "$scratch/out")" $'Cancel request sent\nERROR:  canceling statement due to user request'
}

feature_types() {
  same "$(ask -v words="it's é" <<<"SELECT 9007199254740993, 1234.5600, 0.1::float8, true, :'words', '\\x00015cff'::bytea, DATE '2026-02-28', '{\"a\": [1, null]}'::jsonb;")" \
    "9007199254740993|1234.5600|0.1|t|it's é|\\x00015cff|2026-02-28|{\"a\": [1, null]}"
}

feature_arrays() {
  same "$(ask <<<"SELECT ARRAY[1, NULL, -2], ARRAY['a', NULL, '', 'NULL', '{x, \\y}'];")" \
    '{1,NULL,-2}|{a,NULL,"","NULL","{x, \\y}"}'
}

feature_errors() {
  same "$(psql -X -q -A -t -v VERBOSITY=verbose 2>&1 <<<'SELECT 1 / 0; SELECT 1 FROM WHERE; SELECT 1;' | grep -v LOCATION)" \
    $'ERROR:  22012: division by zero\nERROR:  42601: syntax error at or near "WHERE"\nLINE 1: SELECT 1 FROM WHERE;\n                      ^\n1'
}

# One psql for all of it; what it answers says what is acknowledged.
write_until_told() {
  local n=0 line
  coproc WRITER { ask 2>&1; }
  local ends=("${WRITER[@]}") writer=$WRITER_PID
  while true; do
    read -r -t 0.2 line
    # 0 and 1: a line or the end of the input; more than 128: neither yet.
    [ $? -gt 128 ] || break
    n=$((n + 1))
    if [ $((n % 2)) = 1 ]; then
      echo "INSERT INTO $LOOP (n) VALUES ($n);" >&"${ends[1]}"
    else
      echo "BEGIN; INSERT INTO $LOOP (n) VALUES ($n); COMMIT;" >&"${ends[1]}"
    fi
    echo "SELECT count(*), max(n) FROM $LOOP;" >&"${ends[1]}"
    read -r -u "${ends[0]}" line
    if [ "$line" != "$n|$n" ]; then
      say_cutover false "write $n: $line" "$((n - 1))"
      return
    fi
    [ "$n" != 2 ] || echo '{"begun":true}'
  done
  say_cutover true '' "$n"
  eval "exec ${ends[1]}>&-"
  wait "$writer"
}

run connect tls prepared transactions copy notify cancel types arrays errors pool
write_until_told
