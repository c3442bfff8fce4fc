/**
 * One task: list what moves have made in one database, by their names: slots, subscriptions, publications, roles, claims, fence; and by what
 * they wrote down, the replica identities of tables.
 */
import { invariant } from '../errors/invariant.js';
import type { Connection } from './connection.js';
import type { MigrationRow } from './migrations.js';
import { newTablesAreFenced } from './new-tables.js';
import { identitiesMadeHere } from './prepared-identity.js';
import { readIdentity, readRecord, type Identity, type RecordState } from './record.js';

export type ObjectKind = 'subscription' | 'publication' | 'slot' | 'table slot' | 'role' | 'replica identity';

/** One object whose name says that a move made it. */
export interface MadeObject {
  readonly kind: ObjectKind;
  readonly name: string;
  /** the id of its migration; null for the slot of one table's copy, which carries the subscriber's numbers instead */
  readonly migration: string | null;
  /** oid of the subscription: of its own, or of the one a table's slot belongs to; null elsewhere */
  readonly subscription: number | null;
  /** system identifier of the subscriber a table's slot belongs to; null elsewhere */
  readonly subscriber: string | null;
  /** PostgreSQL 17 and later: kept in step on standbys (pg_replication_slots.failover) */
  readonly failover: boolean;
  /** somebody is connected to the slot now */
  readonly inUse: boolean;
}

export interface Claim extends MigrationRow {
  readonly active: boolean;
}

/** Everything of ours in one database. */
export interface MadeHere {
  readonly identity: Identity;
  readonly objects: readonly MadeObject[];
  readonly claims: readonly Claim[];
  /** null where there is no record */
  readonly record: RecordState | null;
  readonly fencedTables: number;
  /** the event trigger that refuses new tables is there */
  readonly fencesNewTables: boolean;
}

/**
 * The names are streamName() and replicationRole() of streams.ts, and `pg_<subscription>_sync_<table>_<system identifier>` of
 * PostgreSQL's table synchronisation (documentation, 29.9). Roles belong to the cluster: one that owns privileges in another
 * database only is that database's. `to_jsonb` because the column failover is there from PostgreSQL 17 on.
 */
const OBJECTS = `
  WITH here AS (SELECT oid FROM pg_database WHERE datname = current_database()), object AS (
    SELECT 'subscription' AS kind, s.subname AS name, s.oid::bigint AS subscription, NULL AS subscriber, false AS failover, false AS used
    FROM pg_subscription s, here WHERE s.subdbid = here.oid AND s.subname ~ '^cutover_.+_(forward|reverse)(_[0-9]+_[0-9]+)?$'
    UNION ALL
    SELECT 'publication', p.pubname, NULL, NULL, false, false FROM pg_publication p WHERE p.pubname ~ '^cutover_.+_(forward|reverse)(_[0-9]+_[0-9]+)?$'
    UNION ALL
    SELECT CASE WHEN s.slot_name ~ '^cutover_' THEN 'slot' ELSE 'table slot' END, s.slot_name,
      substring(s.slot_name FROM '^pg_([0-9]+)_sync_')::bigint, substring(s.slot_name FROM '^pg_[0-9]+_sync_[0-9]+_([0-9]+)$'),
      coalesce((to_jsonb(s) ->> 'failover')::boolean, false), s.active
    FROM pg_replication_slots s WHERE s.database = current_database()
      AND s.slot_name ~ '^(cutover_.+_(forward|reverse)(_[0-9]+_[0-9]+)?|pg_[0-9]+_sync_[0-9]+_[0-9]+)$'
    UNION ALL
    SELECT 'role', r.rolname, NULL, NULL, false, false FROM pg_roles r, here
    WHERE r.rolname ~ '^cutover_.+_replication$' AND NOT EXISTS (
      SELECT FROM pg_shdepend d
      WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.dbid NOT IN (0, here.oid))
  )
  SELECT kind, name, substring(name FROM '^cutover_(.+?)_(?:(?:forward|reverse)(?:_[0-9]+_(?:[0-9]+|replication))?|replication)$') AS migration,
    subscription::float8 AS subscription, subscriber, failover, used AS "inUse"
  FROM object ORDER BY array_position(ARRAY['subscription', 'publication', 'slot', 'table slot', 'role'], kind), name`;

const CLAIMS = `
  SELECT id, active, owner, operation, database, peer, source, destination, publication
  FROM cutover.migration ORDER BY active DESC, begun_at DESC`;

/** Changes nothing. @throws CutoverError `record_newer` */
export async function madeHere(connection: Connection): Promise<MadeHere> {
  const identity = await readIdentity(connection);
  const record = await readRecord(connection);
  const { rows: named } = await connection.query<MadeObject>(OBJECTS);
  const objects = [...named, ...(await identitiesMadeHere(connection)).map(identityObject)];
  const claims = record === null ? [] : (await connection.query<Claim>(CLAIMS)).rows;
  const { rows } = await connection.query<{ tables: number }>(
    `SELECT count(*)::int AS tables FROM pg_trigger WHERE tgname = 'cutover_fence_write'`,
  );
  invariant(rows[0], 'a count is one row');
  const fencesNewTables = await newTablesAreFenced(connection);
  return { identity, objects, claims, record, fencedTables: rows[0].tables, fencesNewTables };
}

function identityObject({ name, migration }: { readonly name: string; readonly migration: string }): MadeObject {
  const none = { subscription: null, subscriber: null, failover: false, inUse: false };
  return { kind: 'replica identity', name, migration, ...none };
}
