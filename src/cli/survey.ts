/** One task: `cutover survey`: report where the statements that a database has run would run on shards. */
import { loadConfig, type ConfigFiles } from '../config/load.js';
import { withConnection } from '../postgres/connection.js';
import { engineEndpoint } from '../postgres/endpoint.js';
import { readCatalogue } from '../sharding/catalogue.js';
import { Router } from '../sharding/router.js';
import { schemeOf } from '../sharding/scheme.js';
import { loadStatementParser } from '../sharding/statement-parser.js';
import { statementsRun, surveyStatement, SURVEY_CLASSES, type SurveyedStatement } from '../sharding/survey.js';

export interface SurveyOptions {
  readonly files: ConfigFiles;
  /** whose statements; it has pg_stat_statements */
  readonly database: string;
  /** by the rules of this one; it need not be reachable */
  readonly as: string;
  /** statements looked at, those that took most time first */
  readonly limit: number;
  readonly write: (text: string) => void;
}

const QUERY_CHARACTERS = 120;

/**
 * Reads only.
 *
 * @returns 0 when nothing is refused, 2 when something is
 * @throws CutoverError `configuration_invalid` | `database_unknown` | `schema_admin_missing`; PostgreSQL's own error without the extension
 */
export async function survey({ files, database, as, limit, write }: SurveyOptions): Promise<0 | 2> {
  const config = loadConfig(files);
  const parser = await loadStatementParser();
  const seen = await withConnection(
    engineEndpoint(config, database),
    async (connection) => {
      const { rows } = await connection.query<{ path: string[] }>('SELECT current_schemas(false)::text[] AS path');
      const router = new Router(parser, { scheme: schemeOf(config, as), catalogue: await readCatalogue(connection) });
      const statements = await statementsRun(connection, limit);
      return statements.map((row) => surveyStatement(router, row, rows[0]?.path ?? []));
    },
    { roleSearchPath: true },
  );
  for (const line of report(seen)) write(`${line}\n`);
  return seen.some((statement) => statement.class === 'refused') ? 2 : 0;
}

function report(seen: readonly SurveyedStatement[]): readonly string[] {
  const calls = sum(seen, ({ calls }) => calls);
  const ms = sum(seen, ({ totalMs }) => totalMs);
  const summary = SURVEY_CLASSES.flatMap((name) => {
    const own = seen.filter((statement) => statement.class === name);
    if (own.length === 0) return [];
    const shares = [
      share(
        sum(own, (one) => one.calls),
        calls,
      ),
      share(
        sum(own, (one) => one.totalMs),
        ms,
      ),
    ];
    return [
      `${name.padEnd(14)}  ${own.length.toString().padStart(5)} statements  ${shares[0] ?? ''} of calls  ${shares[1] ?? ''} of time`,
    ];
  });
  const details = seen
    .filter(({ class: name }) => name !== 'one shard' && name !== 'any shard' && name !== 'session')
    .map(
      (one) =>
        `${one.class}: ${one.calls.toString()} calls: ${shortened(one.query)}${one.reason === '' ? '' : ` (${one.reason})`}`,
    );
  return [...summary, ...details];
}

function shortened(query: string): string {
  const line = query.replaceAll(/\s+/g, ' ').trim();
  return line.length <= QUERY_CHARACTERS ? line : `${line.slice(0, QUERY_CHARACTERS - 1)}…`;
}

function share(part: number, whole: number): string {
  return `${(whole === 0 ? 0 : (part / whole) * 100).toFixed(1).padStart(5)} %`;
}

function sum<T>(values: readonly T[], of: (value: T) => number): number {
  return values.reduce((total, value) => total + of(value), 0);
}
