/**
 * One task: say of statements that a database has run where each would run on shards, before there are any.
 *
 * `pg_stat_statements` keeps `$n` where a value was, so every parameter stands for one and the same key: what is then on one shard is so
 * whenever its keys agree. An `IN` of several values may need several shards; it is counted as what it is for equal ones.
 */
import type { Connection } from '../postgres/connection.js';
import { REFUSAL_TEXTS } from './router-refusals.js';
import { NO_PARAMETERS, type StatementParameters } from './router-parameters.js';
import { commonRoute, type Route, type Router } from './router.js';
import type { KeyExpression, ParameterKey, Verdict } from './statement-verdict.js';

/** In the order of the report, the best first. */
export const SURVEY_CLASSES = [
  'one shard',
  'any shard',
  'session',
  'coordinator',
  'several shards',
  'refused',
] as const;
export type SurveyClass = (typeof SURVEY_CLASSES)[number];

export interface SurveyedStatement {
  readonly query: string;
  readonly calls: number;
  readonly totalMs: number;
  readonly class: SurveyClass;
  /** why it is refused; empty for others */
  readonly reason: string;
}

interface StatementRow {
  readonly query: string;
  readonly calls: number;
  readonly totalMs: number;
}

/** What this connection's database has run, the most time first. @throws PostgreSQL's own error without the extension */
export async function statementsRun(connection: Connection, limit: number): Promise<readonly StatementRow[]> {
  const { rows: found } = await connection.query<{ schema: string }>(
    `SELECT quote_ident(n.nspname) AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'pg_stat_statements'`,
  );
  // Without it the view's name alone gives PostgreSQL's own error.
  const view = `${found[0]?.schema ?? 'public'}.pg_stat_statements`;
  const { rows } = await connection.query<StatementRow>(
    `SELECT query, sum(calls)::float8 AS calls, sum(total_exec_time)::float8 AS "totalMs" FROM ${view}
     WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query IS NOT NULL
     GROUP BY query ORDER BY 3 DESC LIMIT $1`,
    [limit],
  );
  return rows;
}

/** Pure. */
export function surveyStatement(router: Router, row: StatementRow, searchPath: readonly string[]): SurveyedStatement {
  const verdicts = router.verdictsOn(row.query, searchPath).map(({ verdict }) => verdict);
  const parameters = parametersOf(verdicts.flatMap(keysOf));
  const route = commonRoute(router.route(row.query, { searchPath, parameters }));
  const reason = route.kind === 'refused' ? REFUSAL_TEXTS[route.reason] : '';
  return { ...row, class: classOf(route), reason };
}

function classOf(route: Route): SurveyClass {
  switch (route.kind) {
    case 'shard':
      return 'one shard';
    case 'any':
      return 'any shard';
    case 'session':
    case 'coordinator':
    case 'refused':
      return route.kind;
    case 'every':
    case 'several':
    case 'rows':
    case 'moves-key':
    case 'copy':
      return 'several shards';
  }
}

function keysOf(verdict: Verdict): readonly KeyExpression[] {
  switch (verdict.kind) {
    case 'keys':
      return [
        ...verdict.targets.flatMap(({ alternatives }) => alternatives.flatMap(({ keys }) => keys)),
        ...keysOf(verdict.otherwise),
      ];
    case 'rows':
      return [
        ...verdict.rows,
        ...verdict.targets.flatMap(({ alternatives }) => alternatives.flatMap(({ keys }) => keys)),
      ];
    case 'several':
      return verdict.target?.alternatives.flatMap(({ keys }) => keys) ?? [];
    case 'moves-key':
      return [verdict.target, ...verdict.others]
        .flatMap(({ alternatives }) => alternatives.flatMap(({ keys }) => keys))
        .concat(verdict.to ?? []);
    default:
      return [];
  }
}

/** OIDs of src/include/catalog/pg_type.dat for a key and for an array of keys, with a value of each. */
const STAND_INS = {
  bigint: { single: 20, array: 1016, value: '1' },
  varchar: { single: 1043, array: 1015, value: 'a' },
  uuid: { single: 2950, array: 2951, value: '00000000-0000-0000-0000-000000000001' },
} as const;

function isParameter(key: KeyExpression): key is ParameterKey {
  return key.kind === 'parameter' || key.kind === 'array-parameter';
}

function parametersOf(keys: readonly KeyExpression[]): StatementParameters {
  const values: (Buffer | null)[] = [];
  const types: number[] = [];
  for (const key of keys.filter(isParameter)) {
    const { single, array, value } = STAND_INS[key.type];
    const isArray = key.kind === 'array-parameter';
    values[key.number - 1] = Buffer.from(isArray ? `{${value}}` : value);
    types[key.number - 1] = isArray ? array : single;
  }
  return { ...NO_PARAMETERS, values, types };
}
