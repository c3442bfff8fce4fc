/** One task: say what a preflight check is, and give the checks the words and questions they share. */
import type pg from 'pg';
import type { Config } from '../../config/config.js';
import type { Check } from '../../cutover/contract.js';
import { CutoverError } from '../../errors/errors.js';
import { invariant } from '../../errors/invariant.js';
import type { Connection } from '../connection.js';
import type { Endpoint } from '../endpoint.js';
import type { TableName } from '../fence.js';
import { publishedTables } from '../publications.js';

export interface PreflightSide {
  /** the name in pgdog.toml */
  readonly name: string;
  readonly endpoint: Endpoint;
  /** a connection of the schema_admin; only read from */
  readonly connection: Connection;
}

/** Of a move. */
export interface ShardCounts {
  readonly source: number;
  readonly destination: number;
}

/** Those that are databases of one server. */
export interface ServerShards extends ShardCounts {
  /** the database that answers over all shards of the destination is there too */
  readonly coordinator: boolean;
}

export interface PreflightContext {
  readonly source: PreflightSide;
  readonly destination: PreflightSide;
  /** null: every table */
  readonly publication: string | null;
  readonly config: Config;
  /** how many each side has; absent: one */
  readonly shards?: ShardCounts;
  /** how many of them are databases of the server of this source, and of that of this destination; absent: the one that is looked at */
  readonly onServer?: { readonly source: ServerShards; readonly destination: ServerShards };
  /** tables, as `public.orders`, that get a replica identity from the move itself; absent: none */
  readonly prepared?: readonly string[];
}

/** What a check has found: plain data, without secrets. */
export type Finding = Pick<Check, 'verdict' | 'detail' | 'remedy'>;

/** One row of the table of checks. `run` reads only; it may be called again. */
export interface PreflightCheck {
  /** stable, in kebab case */
  readonly id: string;
  readonly title: string;
  readonly run: (context: PreflightContext) => Promise<Finding>;
}

const NAMES_SHOWN_MAX = 10;

export const ok = (detail: string): Finding => ({ verdict: 'ok', detail, remedy: '' });
export const warning = (detail: string, remedy: string): Finding => ({ verdict: 'warning', detail, remedy });
export const failed = (detail: string, remedy: string): Finding => ({ verdict: 'failed', detail, remedy });

const SEVERITY = { ok: 0, warning: 1, failed: 2 } as const;

/** One finding out of several: the worst verdict, and what those say that are not ok (or what all say, when all are). */
export function combined(findings: readonly Finding[]): Finding {
  const severity = Math.max(0, ...findings.map((finding) => SEVERITY[finding.verdict]));
  const verdict = severity === 2 ? 'failed' : severity === 1 ? 'warning' : 'ok';
  const shown = severity === 0 ? findings : findings.filter((finding) => finding.verdict !== 'ok');
  const joined = (texts: readonly string[]): string => [...new Set(texts.filter((text) => text !== ''))].join(' ');
  return { verdict, detail: joined(shown.map((f) => f.detail)), remedy: joined(shown.map((f) => f.remedy)) };
}

/** `a, b, c and 12 more` */
export function listed(names: readonly string[], shownMax = NAMES_SHOWN_MAX): string {
  const more = names.length - shownMax;
  return more > 0 ? `${names.slice(0, shownMax).join(', ')} and ${more.toString()} more` : names.join(', ');
}

/** Of the server of one side: how many shards of both sides are databases of it. */
export function shardsOn(context: PreflightContext, role: 'source' | 'destination'): ServerShards {
  return context.onServer?.[role] ?? { source: 0, destination: 0, coordinator: false, [role]: 1 };
}

/** `source`, or where a side has several shards `source at 10.0.0.1:5432, with 2 shards of the move`. */
export function serverName(context: PreflightContext, role: 'source' | 'destination'): string {
  const { host, port } = context[role].endpoint;
  const here = shardsOn(context, role);
  const shards = here.source + here.destination;
  if (context.shards === undefined || context.shards.source + context.shards.destination === 2) return role;
  return `${role} at ${host}:${port.toString()}${shards > 1 ? `, with ${shards.toString()} shards of the move,` : ''}`;
}

/** Both sides with the word for each, for checks that ask both the same. */
export function bothSides(
  context: PreflightContext,
): readonly (PreflightSide & { readonly role: 'source' | 'destination' })[] {
  return [
    { ...context.source, role: 'source' },
    { ...context.destination, role: 'destination' },
  ];
}

export async function rowsOf<T extends pg.QueryResultRow>(
  side: PreflightSide,
  text: string,
  values: readonly unknown[] = [],
): Promise<readonly T[]> {
  return (await side.connection.query<T>(text, [...values])).rows;
}

export async function rowOf<T extends pg.QueryResultRow>(
  side: PreflightSide,
  text: string,
  values: readonly unknown[] = [],
): Promise<T> {
  const [row] = await rowsOf<T>(side, text, values);
  invariant(row, 'a query without FROM answers one row');
  return row;
}

/** Settings as pg_settings has them, numbers in the setting's own unit; one that the role may not see is absent. */
export async function settingsOf(side: PreflightSide, names: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const rows = await rowsOf<{ name: string; setting: string }>(
    side,
    'SELECT name, setting FROM pg_settings WHERE name = ANY ($1)',
    [names],
  );
  return new Map(rows.map((row) => [row.name, row.setting]));
}

export async function versionOf(side: PreflightSide): Promise<number> {
  const row = await rowOf<{ version: number }>(side, `SELECT current_setting('server_version_num')::int AS version`);
  return row.version;
}

export function majorOf(version: number): number {
  return Math.floor(version / 10_000);
}

/** The tables that would move; every table where the publication does not exist, which is another check's finding. */
export async function tablesToMove(context: PreflightContext): Promise<readonly TableName[]> {
  const { connection } = context.source;
  try {
    return await publishedTables(connection, context.publication);
  } catch (error) {
    if (error instanceof CutoverError && error.code === 'publication_unknown') return publishedTables(connection, null);
    throw error;
  }
}

/** `c`: the pg_class rows of the tables given as `tableParameters`. No cast to regclass: it needs USAGE on the schema. */
export const TABLES_TO_MOVE = `unnest($1::text[], $2::text[]) AS t (schema, name)
  JOIN pg_namespace tn ON tn.nspname = t.schema JOIN pg_class c ON c.relnamespace = tn.oid AND c.relname = t.name`;

/** Parameters for TABLES_TO_MOVE. */
export function tableParameters(tables: readonly TableName[]): readonly [readonly string[], readonly string[]] {
  return [tables.map((t) => t.schema), tables.map((t) => t.table)];
}
