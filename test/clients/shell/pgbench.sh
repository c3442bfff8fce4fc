#!/usr/bin/env bash
# One task: the features of pgbench, with its own tables and with scripts. It has no LISTEN, no cancel and no values to compare.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/report.sh"

# What a script brings: its errors, and how many transactions were done.
bench() { pgbench -n "$@" >"$scratch/out" 2>&1 || { cat "$scratch/out"; return 1; }; }
processed() { sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$scratch/out"; }

feature_connect() {
  echo 'SELECT current_user;' >"$scratch/script"
  bench -t 1 -f "$scratch/script"
  if PGPASSWORD=wrong bench -t 1 -f "$scratch/script" >/dev/null; then echo 'a wrong password was taken'; return 1; fi
  grep -q 'password authentication failed' "$scratch/out"
}

feature_tls() {
  echo 'SELECT 1;' >"$scratch/script"
  verified "$TRUSTED_CA" bench -t 5 -f "$scratch/script"
  if verified "$OTHER_CA" bench -t 1 -f "$scratch/script" >/dev/null; then echo 'somebody else was taken for the server'; return 1; fi
  grep -q 'certificate verify failed' "$scratch/out"
}

feature_prepared() {
  local protocol
  ask -c "DELETE FROM $ITEMS" -c "INSERT INTO $ITEMS SELECT n, 'note' FROM generate_series(1, 10) AS n"
  printf '%s\n' '\set id random(1, 10)' "SELECT note FROM $ITEMS WHERE id = :id;" >"$scratch/script"
  for protocol in simple extended prepared; do
    bench -M "$protocol" -c 2 -t 20 -f "$scratch/script"
    same "$(processed)" 40
  done
}

feature_transactions() {
  ask -c "DELETE FROM $ITEMS"
  printf '%s\n' '\set n :n + 1' 'BEGIN;' "INSERT INTO $ITEMS VALUES (:n, 'note');" 'COMMIT;' 'BEGIN;' "DELETE FROM $ITEMS;" 'ROLLBACK;' >"$scratch/script"
  bench -D n=0 -M prepared -t 10 -f "$scratch/script"
  same "$(ask -c "SELECT count(*), max(id) FROM $ITEMS")" '10|10'
}

feature_copy() {
  # Its tables come by DDL, their rows by COPY; one has no key, so none of them stays for the move.
  pgbench -i -I dtgp -q >"$scratch/out" 2>&1 || { cat "$scratch/out"; return 1; }
  same "$(ask -c 'SELECT count(*) FROM pgbench_accounts')" 100000
  bench -c 4 -t 10
  same "$(ask -c 'SELECT count(*) FROM pgbench_history')" 40
  pgbench -i -I d -q 2>/dev/null
}

feature_errors() {
  echo 'SELECT 1 / 0;' >"$scratch/script"
  if bench -t 1 -f "$scratch/script" >/dev/null; then echo 'an error was passed over'; return 1; fi
  grep -q 'division by zero' "$scratch/out"
}

feature_pool() {
  echo 'SELECT 1;' >"$scratch/script"
  # -C: a connection for each transaction.
  bench -C -c 8 -j 2 -t 5 -f "$scratch/script"
  same "$(processed)" 40
}

write_until_told() {
  local problem=''
  cat >"$scratch/loop" <<SQL
\\set n :n + 1
INSERT INTO $LOOP (n) VALUES (:n);
SELECT count(*), max(n) FROM $LOOP;
\\sleep 200 ms
\\set n :n + 1
BEGIN;
INSERT INTO $LOOP (n) VALUES (:n);
COMMIT;
\\sleep 200 ms
SQL
  # In ten minutes at the latest; the signal by which it knows its time brings that about now.
  pgbench -n -M prepared -D n=0 -T 600 -f "$scratch/loop" >"$scratch/out" 2>&1 </dev/null &
  local writer=$!
  until [ "$(ask -c "SELECT count(*) > 1 FROM $LOOP")" = t ]; do sleep 0.1; done
  echo '{"begun":true}'
  cat >/dev/null
  kill -ALRM "$writer"
  wait "$writer" || problem=$(cat "$scratch/out")
  local acknowledged=$(($(processed) * 2))
  [ -n "$problem" ] || problem=$(same "$(ask -c "SELECT count(*), max(n) FROM $LOOP")" "$acknowledged|$acknowledged")
  if [ -z "$problem" ]; then say_cutover true '' "$acknowledged"; else say_cutover false "$problem" "$acknowledged"; fi
}

run connect tls prepared transactions copy notify cancel types arrays errors pool
write_until_told
