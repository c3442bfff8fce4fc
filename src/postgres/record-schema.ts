/**
 * One task: the tables and functions of the protocol of record, as they stand in the schema `cutover` of every database
 * that belongs to a migration.
 *
 * What each function may do, and why in that order, is written in docs/protocol.md. The functions run with the caller's
 * rights, except the trigger function, which every application role must be able to run.
 */

import { CATALOGUE_DDL } from './catalogue.js';
import { DECISION_FUNCTIONS } from './decision-functions.js';
import { DOOR_FUNCTIONS } from './door-functions.js';
import { FENCE_FUNCTIONS } from './fence-functions.js';
import { VERIFICATION_DDL } from './verification/record.js';

/** Raised by the number of the layout; a record written by a newer layout is refused. */
export const RECORD_VERSION = 4;

const TABLES = `
CREATE SCHEMA IF NOT EXISTS cutover;

CREATE TABLE IF NOT EXISTS cutover.layout (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL
);
INSERT INTO cutover.layout (version) VALUES (${RECORD_VERSION.toString()})
ON CONFLICT (only_row) DO UPDATE SET version = excluded.version WHERE layout.version < excluded.version;

-- One row per epoch, never overwritten: the decision which side serves.
CREATE TABLE IF NOT EXISTS cutover.decision (
  epoch bigint PRIMARY KEY,
  migration text NOT NULL,
  attempt text NOT NULL,
  nonce text NOT NULL,
  state text NOT NULL CHECK (state IN ('preparing', 'sealed', 'committed', 'finalizing', 'finalized', 'aborted')),
  database text NOT NULL,
  peer text NOT NULL,
  source jsonb NOT NULL,
  destination jsonb NOT NULL,
  seal_lsn pg_lsn,
  reason text,
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  sealed_at timestamptz,
  decided_at timestamptz,
  UNIQUE (migration, attempt)
);

-- Whether this database accepts application writes, and by which epoch it was decided.
CREATE TABLE IF NOT EXISTS cutover.fence (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch bigint NOT NULL DEFAULT 0,
  state text NOT NULL CHECK (state IN ('open', 'closed', 'sealed', 'ready', 'refused')),
  nonce text NOT NULL DEFAULT '',
  seal_lsn pg_lsn,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- is_called = the fence is up. A sequence is not under MVCC: a snapshot older than the seal still sees it.
CREATE SEQUENCE IF NOT EXISTS cutover.fence_flag;

-- Rows only ever added, so that an apply worker never has to update a row it does not have.
CREATE TABLE IF NOT EXISTS cutover.marker (
  cluster text NOT NULL,
  shard integer NOT NULL,
  epoch bigint NOT NULL,
  nonce text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('seal', 'canary')),
  written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (cluster, shard, epoch, nonce, kind)
);

-- A database belongs to at most one migration that is not over.
CREATE TABLE IF NOT EXISTS cutover.migration (
  id text PRIMARY KEY,
  active boolean NOT NULL DEFAULT true,
  owner text NOT NULL,
  operation text,
  database text NOT NULL,
  peer text NOT NULL,
  source jsonb NOT NULL,
  destination jsonb NOT NULL,
  publication text NOT NULL,
  begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS migration_one_active ON cutover.migration ((true)) WHERE active;

CREATE TABLE IF NOT EXISTS cutover.event (
  stream text NOT NULL,
  sequence integer NOT NULL,
  type text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  data jsonb NOT NULL,
  PRIMARY KEY (stream, sequence)
);
${VERIFICATION_DDL}`;

/** What layout 1 did not have. A null says what the older program meant: a fence, and nothing known of the rest. */
const LAYOUT_2 = `
-- Where applications find the side that serves, for the words of a refusal: host:port/database, no credentials.
ALTER TABLE cutover.fence ADD COLUMN IF NOT EXISTS peer_address text NOT NULL DEFAULT '';
-- false: this epoch was moved with cutover_fence = off, so nothing barred direct writers.
ALTER TABLE cutover.decision ADD COLUMN IF NOT EXISTS fenced boolean;
-- The publication that was sealed.
ALTER TABLE cutover.decision ADD COLUMN IF NOT EXISTS publication text;
-- Set while the migration is being removed: no epoch begins any more.
ALTER TABLE cutover.migration ADD COLUMN IF NOT EXISTS ending boolean NOT NULL DEFAULT false;
DROP FUNCTION IF EXISTS cutover.refuse(bigint);
DROP FUNCTION IF EXISTS cutover.begin(text, text, text, bigint, text, text, jsonb, jsonb);
DROP FUNCTION IF EXISTS cutover.ready(bigint, text, integer);
`;

const IDENTITY = `
-- Who answers: a server that failed over has another timeline, a stranger another system identifier.
CREATE OR REPLACE FUNCTION cutover.identity() RETURNS jsonb LANGUAGE sql AS $function$
  SELECT jsonb_build_object(
    'systemIdentifier', (SELECT system_identifier::text FROM pg_control_system()),
    'databaseOid', (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
    'inRecovery', pg_is_in_recovery(),
    'timeline', CASE WHEN pg_is_in_recovery() THEN 0
      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END)
$function$;

-- Of the shards of a side, as a decision has it, the one that this database is; null where it is none of them.
CREATE OR REPLACE FUNCTION cutover.own_shard(p_side jsonb) RETURNS jsonb LANGUAGE sql AS $function$
  SELECT s FROM jsonb_array_elements(jsonb_build_array(p_side) || coalesce(p_side -> 'otherShards', '[]')) AS s, cutover.identity() AS i
  WHERE s ->> 'systemIdentifier' = i ->> 'systemIdentifier' AND s -> 'databaseOid' = i -> 'databaseOid' LIMIT 1
$function$;

CREATE OR REPLACE FUNCTION cutover.fence_is_up() RETURNS boolean LANGUAGE sql AS $function$
  SELECT is_called FROM cutover.fence_flag
$function$;
`;

const EVENTS = `
-- Events are facts: the first writer of (stream, sequence) wins. A later one may only add what the first could not know when
-- it wrote inside its own transaction: how long that took.
CREATE OR REPLACE FUNCTION cutover.note(p_stream text, p_events jsonb) RETURNS void LANGUAGE sql AS $function$
  INSERT INTO cutover.event (stream, sequence, type, data)
  SELECT p_stream, (e ->> 'sequence')::integer, e ->> 'type', e -> 'data' FROM jsonb_array_elements(p_events) AS e
  ON CONFLICT (stream, sequence) DO UPDATE SET data = excluded.data || event.data
    WHERE event.type = excluded.type AND NOT event.data ? 'ms' AND excluded.data ? 'ms'
$function$;
`;

/** The DDL of one database, to be run as one simple query: it is one transaction and may be repeated. */
export const RECORD_DDL = [
  TABLES,
  LAYOUT_2,
  IDENTITY,
  EVENTS,
  FENCE_FUNCTIONS,
  CATALOGUE_DDL,
  DECISION_FUNCTIONS,
  DOOR_FUNCTIONS,
].join('\n');
