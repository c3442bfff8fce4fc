/** One task: say to a client, for each reason of the router, why its statement was not run. docs/routing.md has the same table. */
import type { RefusalReason } from './statement-verdict.js';

/** feature_not_supported: the statement may be right, but not on a sharded database. */
export const REFUSED_SQLSTATE = '0A000';

export const REFUSAL_TEXTS: Readonly<Record<RefusalReason, string>> = {
  unpinned: 'it writes sharded tables and does not bind each of them to a sharding key',
  'several-shards': 'it needs rows of several shards in a way that cannot be divided',
  view: 'it writes and uses a view, and what a view reads is not followed',
  function: 'it writes and calls a function that may read tables',
  operator: 'it writes and uses an operator whose function may read tables',
  'unknown-table': 'it names a table that the catalogue does not have',
  'unknown-column': 'it names a column that the catalogue does not have, which may be a function',
  'unknown-function': 'it writes and calls a function that the catalogue does not have',
  'join-alias': 'it writes and gives a join an alias',
  'search-path': 'it writes while search_path has pg_catalog after another schema',
  'schema-all': 'it writes a table whose schema is on every shard',
  explain: 'EXPLAIN ANALYZE would run a write on several shards',
  'copy-to': 'COPY TO of this table',
  refresh: 'a materialised view lives on the coordinator',
  syntax: 'it is not understood',
  'row-lock': 'it locks rows that are not all on one shard, or rows that every shard has',
  physical: 'it asks where rows lie (ctid, xmin, tableoid, ONLY, TABLESAMPLE) without being bound to one shard',
  sequence: "it asks for a sequence's state, which each shard has for itself",
  'advisory-lock': 'it takes an advisory lock or notifies while it uses tables',
  'large-object': 'large objects are not sharded',
  'set-config': 'it calls set_config beside other work; use SET, or set_config alone',
  'key-missing': 'it leaves the sharding column to a default that only the server can compute',
  'key-not-constant': 'the sharding key is neither a constant nor a parameter, or not one whose type is certain',
  'key-unmapped': 'no shard is configured for the sharding key',
  'conflict-moves-key': 'ON CONFLICT would change the sharding key',
  'conflict-without-key':
    'ON CONFLICT asks for a unique key without the sharding column, which no shard can check alone',
  'insert-select': 'the key of the rows that the query gives is not bound',
  merge: 'MERGE inserts without a constant key, changes the key, or needs every row of the table',
  'omnisharded-from-sharded': 'it writes a table of every shard from what one shard has',
  'omnisharded-not-deterministic':
    'it writes a table of every shard with values that each shard would compute otherwise',
  'create-table-as': 'it makes a table out of rows; create it, then use INSERT … SELECT',
  'temporary-table': 'a temporary table lives on one server only',
  procedure: 'DO and CALL may write anywhere',
  'cluster-command': 'it is about a whole server, its roles or replication: run it on the servers themselves',
  'copy-file': "it reads or writes a server's file or program",
  'current-of': 'a cursor is on one server only',
  'too-long': 'its text is longer than 4 MB',
  'too-complex': 'it is nested too deeply',
  'manual-shard': 'the shard or key asked for by hand is not there, or not where the statement must run',
  'several-statements': 'its parts belong to different places; send them one by one',
};
